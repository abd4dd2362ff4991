"""Caches of arrays: in memory, in front of an object store that all runs share."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final

from safetensors.numpy import load, save

from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore
from terroir.training.engine.ports import Arrays

_DIGEST_BYTES: Final = hashlib.sha256().digest_size


class MemoryArrayCache:
    """Keeps arrays as long as the process lives."""

    def __init__(self) -> None:
        self._arrays: dict[str, Arrays] = {}

    def get(self, key: str) -> Arrays | None:
        """The arrays under `key`, if there are any."""
        return self._arrays.get(key)

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep arrays under `key`."""
        self._arrays[key] = arrays


class StoreArrayCache:
    """Keeps arrays under `cache/`; a damaged entry counts as missing and is written anew.

    An entry is the SHA-256 of a safetensors file, then that file: a wrong bit among the numbers would decode as well.
    """

    def __init__(self, store: ObjectStore, prefix: str = "cache") -> None:
        self._store = store
        self._prefix = prefix

    def get(self, key: str) -> Arrays | None:
        """The arrays under `key`, if there are any."""
        try:
            entry = self._store.get(f"{self._prefix}/{key}")
        except NotFound:
            return None
        digest, arrays = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
        if hashlib.sha256(arrays).digest() != digest:
            self._store.delete(f"{self._prefix}/{key}")
            return None
        found: Arrays = load(arrays)
        return found

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep arrays under `key`."""
        with contextlib.suppress(AlreadyExists):  # another run encoded the same content
            data = save(dict(arrays))
            self._store.create(f"{self._prefix}/{key}", hashlib.sha256(data).digest() + data)
