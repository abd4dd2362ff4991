"""What is drawn, looked up and kept as one: the variants of a content in a look, of one size and format."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

from terroir.common.validation import ensure_text
from terroir.inference.delivery.picture_files import PictureFormat

MAX_KEY_CHARACTERS = 256
_SEED_BYTES = 4


class Shape(NamedTuple):
    """Size in pixels and file format."""

    width: int
    height: int
    format: PictureFormat

    def __str__(self) -> str:
        return f"{self.width}x{self.height}-{self.format.value}"


class Unit(NamedTuple):
    """Names one set of variants; a tuple, as thousands a second are made and looked up."""

    content: str
    """Digest of the content's key; see `content_digest`."""
    look: str
    """Digest of the look."""
    shape: Shape

    @property
    def key(self) -> str:
        """Where the set lies in the store."""
        return f"covers/sets/{self.content[:2]}/{self.content}/{self.look}/{self.shape}"

    def seed(self, number: int) -> int:
        """Seed of candidate `number`, 0 … 2^32 - 1: the same on every server, so that nothing drawn twice differs."""
        drawn = hashlib.sha256(f"{self.content}\n{self.look}\n{number}".encode()).digest()
        return int.from_bytes(drawn[:_SEED_BYTES], "big")


@lru_cache(maxsize=65_536)
def content_digest(key: str) -> str:
    """SHA-256, hex, of a content's key: keys are the callers' own words and never become paths."""
    return hashlib.sha256(key.encode()).hexdigest()


def ensure_content_key(key: str, field: str) -> str:
    """Raises InvalidArgument."""
    return ensure_text(key, field, MAX_KEY_CHARACTERS, min_length=1)
