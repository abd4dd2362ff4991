"""What the index keeps of one adapter: packed documents, and beside them the few facts that searches look at."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern
from typing import Any, Final

from terroir.registry.regions.codes import same
from terroir.store.documents import Document

HASH_PREFIX_DIGITS: Final = 8
"""Shortest hash that can be looked up; also the length of the shortest that model sites show (AutoV1)."""

_LEVEL: Final = 1
_NO_METRICS: Final[Mapping[str, float]] = {}


def pack(document: Document) -> bytes:
    """A document in about half a kilobyte; its number is not in it, its place tells."""
    fields = (document.body, document.op_id, document.etag, document.created_at, document.request_digest)
    return zlib.compress(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode(), _LEVEL)


def unpack(number: int, packed: bytes) -> Document:
    """Inverse of `pack`."""
    body, op_id, etag, created_at, request_digest = json.loads(zlib.decompress(packed))
    return Document(number, body, op_id, etag, created_at, request_digest)


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What searches ask of an adapter's newest version."""

    base: str
    region: str
    """Under the key of `region_codes.same`; empty for none."""
    tags: tuple[str, ...]
    trigger_word: str
    text: str
    """Identifier, trigger word and description, in lower case."""
    published: float
    """Seconds since 1970."""
    metrics: Mapping[str, float]

    @staticmethod
    def of(adapter: str, document: Document) -> VersionFacts:
        """The facts of a version's document."""
        body = document.body
        words = (adapter, body["trigger_word"], body["description"])
        return VersionFacts(
            base=intern(body["base"]),
            region=intern(same(body["region"])),
            tags=tuple(map(intern, body["tags"])),
            trigger_word=intern(body["trigger_word"]),
            text="\n".join(word.lower() for word in words if word),
            published=datetime.fromisoformat(document.created_at).timestamp(),
            metrics={intern(name): value for name, value in body["metrics"].items()} or _NO_METRICS,
        )


@dataclass(slots=True)
class AdapterRow:
    """One adapter in the index."""

    versions: list[bytes] = field(default_factory=list)
    """Packed; version n at n - 1."""
    created_at: str = ""
    """RFC 3339, UTC; of version 1."""
    state: bytes = b""
    """The newest packed document of what moves; empty before the first."""
    state_number: int = 0
    facts: VersionFacts | None = None
    """Of the newest version; None before the first."""
    aliases: tuple[str, ...] = ()
    deprecated: frozenset[int] = frozenset()
    """Numbers of versions that must not be used any more."""

    def version(self, number: int) -> Document | None:
        """The document of a version."""
        return unpack(number, self.versions[number - 1]) if 1 <= number <= len(self.versions) else None

    def state_document(self) -> Document | None:
        """The newest document of what moves."""
        return unpack(self.state_number, self.state) if self.state_number else None


def hashes_of(body: Mapping[str, Any]) -> Iterator[str]:
    """Every digest by which a version may be found, in hexadecimal."""
    yield body["kohya"]["digest"]
    yield body["upload_digest"]
    yield body["tensor_digest"]
    yield from body["hashes"].values()


def hash_key(digest: str) -> int:
    """The first 32 bits of a hash, under which the index keeps it."""
    return int(digest[:HASH_PREFIX_DIGITS], 16)
