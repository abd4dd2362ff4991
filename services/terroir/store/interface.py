"""The seam between the product and whatever keeps its objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from terroir.store.errors import InvalidKey

MAX_KEY_CHARS = 1024
"""S3's limit for a whole key."""

MAX_SEGMENT_CHARS = 200
"""Below the 255 bytes that file systems allow a name, so that every key is also a file name."""

_SEGMENT = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_SEGMENT_CHARS - 1}}}")


class ObjectStore(Protocol):
    """Named byte strings with a create-only write; safe for several threads and processes at once.

    Keys are segments joined by `/` (see `ensure_key`); an object's key is never also the folder of another.
    Every method raises `InvalidKey` for a malformed key and `StoreUnavailable` when the place can't be reached,
    read or written. A write that raised `StoreUnavailable` may have happened all the same.
    """

    def get(self, key: str) -> bytes:
        """The whole object; `NotFound` when there is none."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from byte `start`: fewer at the end of the object, none past it; `NotFound`."""
        ...

    def size(self, key: str) -> int:
        """Bytes of the object; `NotFound` when there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether a whole object is there."""
        ...

    def create(self, key: str, body: bytes) -> None:
        """Write an object that must not exist: of racing writers one wins, the others get `AlreadyExists`."""
        ...

    def put(self, key: str, body: bytes) -> None:
        """Write or replace, the last writer wins. Only for hints: a power cut may lose it."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is already removed."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Sorted keys below the folder `prefix` (whole segments, "" for all). Never on a hot path."""
        ...


def ensure_key(key: str) -> str:
    """Return `key`, or raise `InvalidKey`: a key can't name anything outside the store on any driver.

    Segments start with a letter or digit, so `..`, hidden files, absolute and empty segments are all refused.
    """
    if len(key) > MAX_KEY_CHARS:
        raise InvalidKey(f"key of {len(key)} characters exceeds {MAX_KEY_CHARS} (shorten the identifiers in it)", key)
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise InvalidKey(
                f"key {key!r} has the segment {segment!r} (use 1 to {MAX_SEGMENT_CHARS} of A-Z a-z 0-9 . _ -, "
                "beginning with a letter or digit)",
                key,
            )
    return key


def ensure_prefix(prefix: str) -> str:
    """Return `prefix` without its trailing slash, or raise `InvalidKey`; "" is the whole store."""
    return prefix and ensure_key(prefix.removesuffix("/"))
