"""Caches of arrays: in memory, in front of an object store that all runs share."""

from __future__ import annotations

import contextlib

from safetensors import SafetensorError
from safetensors.numpy import load, save

from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore
from terroir.training.engine.ports import Arrays


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
    """Keeps arrays as safetensors under `cache/`; a damaged entry counts as missing and is written anew."""

    def __init__(self, store: ObjectStore, prefix: str = "cache") -> None:
        self._store = store
        self._prefix = prefix

    def get(self, key: str) -> Arrays | None:
        """The arrays under `key`, if there are any."""
        try:
            arrays: Arrays = load(self._store.get(f"{self._prefix}/{key}"))
        except NotFound:
            return None
        except SafetensorError:
            self._store.delete(f"{self._prefix}/{key}")
            return None
        return arrays

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep arrays under `key`."""
        with contextlib.suppress(AlreadyExists):  # another run encoded the same content
            self._store.create(f"{self._prefix}/{key}", save(dict(arrays)))
