"""What callers have covers drawn of: a key of theirs, and the words for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from terroir.common.validation import ensure_text
from terroir.inference.covers.units import content_digest, ensure_content_key
from terroir.inference.request.wish import MAX_PROMPT_CHARACTERS
from terroir.store.errors import NotFound
from terroir.store.interface import ObjectStore


@dataclass(frozen=True)
class Content:
    """Something that has covers."""

    key: str
    prompt: str
    negative_prompt: str = ""
    """Empty takes the look's."""

    @cached_property
    def text_digest(self) -> str:
        """SHA-256, hex, of the words: a set that was drawn for others is stale."""
        return hashlib.sha256(json.dumps([self.prompt, self.negative_prompt]).encode()).hexdigest()

    def ensure(self, field: str) -> Content:
        """Raises InvalidArgument."""
        ensure_content_key(self.key, f"{field}.key")
        ensure_text(self.prompt, f"{field}.prompt", MAX_PROMPT_CHARACTERS, min_length=1)
        ensure_text(self.negative_prompt, f"{field}.negative_prompt", MAX_PROMPT_CHARACTERS)
        return self


class Contents:
    """The newest words of each content, `covers/contents/<aa>/<digest>`; safe for threads. Raises StoreUnavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> Content | None:
        """What was last said of a content; None if nothing that can be read."""
        try:
            return Content(**json.loads(self._store.get(_key(digest))))
        except (NotFound, ValueError, TypeError):
            return None

    def put(self, content: Content) -> bool:
        """Remember a content; whether its words differ from those before."""
        before = self.find(digest := content_digest(content.key))
        if before == content:
            return False
        self._store.put(_key(digest), json.dumps(asdict(content), ensure_ascii=False).encode())
        return before is not None and before.text_digest != content.text_digest


def _key(digest: str) -> str:
    return f"covers/contents/{digest[:2]}/{digest}"
