"""Byte strings named by their own digest: written once, never changed, verified when read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress

from terroir.store.errors import AlreadyExists, CorruptBlob, InvalidKey
from terroir.store.interface import ObjectStore
from terroir.store.observer import tell_damaged

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """`blobs/sha256/<first two digits>/<digest>`; digests are 64 lower-case hex digits of sha256."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def store(self) -> ObjectStore:
        """Where they are kept."""
        return self._store

    def put(self, data: bytes, *, likely_new: bool = False) -> str:
        """Store `data` and return its digest; storing the same bytes again, or at the same time, is success.

        `likely_new` sends them without asking first whether they are there, which spares a request if they are not.
        """
        digest = hashlib.sha256(data).hexdigest()
        key = _key(digest)
        if likely_new or not self._store.exists(key):  # asking spares sending a body that is there already
            with suppress(AlreadyExists):
                self._store.create(key, data)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes of `digest`; raises `NotFound`, or `CorruptBlob` when the store returns other bytes."""
        data = self._store.get(_key(digest))
        self._verify(hashlib.sha256(data).hexdigest(), digest)
        return data

    def exists(self, digest: str) -> bool:
        """Whether the blob is stored; its bytes are not verified."""
        return self._store.exists(_key(digest))

    def size(self, digest: str) -> int:
        """Bytes of the blob; raises `NotFound`."""
        return self._store.size(_key(digest))

    def discard(self, digest: str) -> None:
        """Delete a blob that nothing names any more; one that is not there is already gone."""
        self._store.delete(_key(digest))

    def iter_chunks(self, digest: str, chunk_bytes: int, size_bytes: int | None = None) -> Iterator[bytes]:
        """The blob in pieces of `chunk_bytes` (the last may be shorter), never whole in memory.

        Who knows its size saves a request to the store.

        The last piece is held back until the digest is proved, so a `CorruptBlob` always comes before the end and
        nobody can take corrupt bytes for a complete blob.
        """
        if chunk_bytes < 1:
            raise ValueError(f"chunk_bytes {chunk_bytes} (pass at least 1)")
        key = _key(digest)
        size = self._store.size(key) if size_bytes is None else size_bytes
        if 0 < size <= chunk_bytes:
            yield self.get(digest)  # one request; a range asks for the size again
            return
        seen = hashlib.sha256()
        held: bytes | None = None
        for start in range(0, size, chunk_bytes):
            if held is not None:
                yield held
            held = self._store.get_range(key, start, chunk_bytes)
            seen.update(held)
        self._verify(seen.hexdigest(), digest)
        if held is not None:
            yield held

    def _verify(self, actual: str, digest: str) -> None:
        if actual != digest:
            tell_damaged(self._store)
            raise CorruptBlob(
                f"blob {digest} is corrupt: its bytes have the sha256 {actual} (restore {_key(digest)} from a copy of "
                "the store, or delete that object and store the same bytes again)",
                _key(digest),
            )


def _key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidKey(f"digest {digest[:80]!r} is not a sha256 (pass 64 lower-case hex digits)", digest)
    return f"blobs/sha256/{digest[:2]}/{digest}"
