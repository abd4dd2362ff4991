"""Adapters in host memory: loaded once however many ask, held while requests use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from terroir.inference.errors import AdapterMemoryFull
from terroir.inference.metrics import InferenceMetrics
from terroir.inference.pinned_lru import PinnedLru
from terroir.inference.sources import VersionInfo
from terroir.lora.adapter import Adapter
from terroir.lora.key_table import KeyTable


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter as the base understands it."""

    version: str
    digest: str
    adapter: Adapter
    ignored_keys: int
    """Keys of the file that name no layer of the base."""


class Loader(Protocol):
    """Brings an adapter from disk or registry; never on the device thread."""

    async def load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        """Fetch, verify and parse; raises a TerroirError."""
        ...


class Residency:
    """The host tier. One event loop owns it."""

    def __init__(self, loader: Loader, budget_bytes: int, metrics: InferenceMetrics) -> None:
        self._loader = loader
        self._metrics = metrics
        self._cache: PinnedLru[LoadedAdapter] = PinnedLru(budget_bytes)
        self._loading: dict[str, asyncio.Task[LoadedAdapter]] = {}

    @property
    def used_bytes(self) -> int:
        """Bytes held."""
        return self._cache.used_bytes

    @property
    def budget_bytes(self) -> int:
        """Bytes that may be held."""
        return self._cache.budget_bytes

    def resident(self) -> Iterator[tuple[LoadedAdapter, int]]:
        """Adapters with their sizes in bytes, least recently used first."""
        return iter(self._cache)

    @asynccontextmanager
    async def hold(self, version: VersionInfo, key_table: KeyTable) -> AsyncIterator[LoadedAdapter]:
        """The adapter, kept in memory until the end; raises what the loader raises, or AdapterMemoryFull."""
        digest = version.file_digest
        loaded = self._cache.pin(digest)
        if loaded is None:
            loaded = await self._load(version, key_table)
        try:
            yield loaded
        finally:
            self._cache.unpin(digest)
            self._metrics.host_bytes(self._cache.used_bytes)

    async def _load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        """Join or start the load of this digest and pin the result."""
        digest = version.file_digest
        task = self._loading.get(digest)
        if task is None:
            task = asyncio.create_task(self._loader.load(version, key_table))
            task.set_name(digest)
            self._loading[digest] = task
            task.add_done_callback(self._load_ended)
        # Shielded: one caller who gives up must not take the load away from the others.
        loaded = await asyncio.shield(task)
        if self._cache.pin(digest) is None:
            self._add(loaded)
            self._cache.pin(digest)
            self._cache.evict()
        return loaded

    def _load_ended(self, task: asyncio.Task[LoadedAdapter]) -> None:
        del self._loading[task.get_name()]
        if not task.cancelled():
            task.exception()  # read, for when every caller has given up; those who wait get it too

    def _add(self, loaded: LoadedAdapter) -> None:
        size, pinned = loaded.adapter.size_bytes, self._cache.pinned_bytes
        if pinned + size > self.budget_bytes:
            raise AdapterMemoryFull(
                f"{loaded.version} takes {size} bytes, {pinned} of {self.budget_bytes} are held by running requests; "
                "try again, or raise TERROIR_INFERENCE_ADAPTER_MEMORY_BYTES",
                retry_after_seconds=1.0 if pinned else None,
            )
        self._cache.add(loaded.digest, loaded, size)
