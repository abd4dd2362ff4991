"""Adapters in host memory: loaded once however many ask, held while requests use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from terroir.inference.adapters.pinned_lru import PinnedLru
from terroir.inference.adapters.sources import VersionInfo
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.tiers import Tier
from terroir.inference.errors import AdapterMemoryFull
from terroir.lora.adapter import Adapter
from terroir.lora.key_table import KeyTable


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter as the base understands it."""

    version: str
    """As it was asked for: several versions may have one file."""
    digest: str
    adapter: Adapter
    ignored_keys: int
    """Keys of the file that name no layer of the base."""
    found: Tier
    """Where it came from when it was loaded; in a `Style`, where it was when the request asked for it."""


@dataclass(frozen=True)
class Resident:
    """An adapter in host memory, for lists."""

    version: str
    digest: str
    size_bytes: int
    pins: int
    """Requests that hold it."""


class Loader(Protocol):
    """Brings an adapter from disk or registry; never on the device thread."""

    async def load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        """Fetch, verify and parse; raises a TerroirError."""
        ...

    async def vouch(self, version: VersionInfo) -> None:
        """Check what is the version's own where its file is in memory under another one; raises a TerroirError."""
        ...

    def forget(self, digest: str) -> None:
        """Keep a file on no disk any more."""
        ...

    async def close(self) -> None:
        """Wait until what was loaded is kept."""
        ...


class Residency:
    """The host tier. One event loop owns it."""

    def __init__(self, loader: Loader, budget_bytes: int, metrics: TierMetrics) -> None:
        self._loader = loader
        self._metrics = metrics
        self._cache: PinnedLru[LoadedAdapter] = PinnedLru(budget_bytes, self._gone)
        metrics.budget(Tier.HOST, budget_bytes)
        self._loading: dict[str, asyncio.Task[LoadedAdapter]] = {}
        self._unwanted: set[str] = set()
        """Forgotten while they were loaded."""
        self._vouched: dict[str, set[str]] = {}
        """By digest: versions whose file it is, as was checked."""

    @property
    def used_bytes(self) -> int:
        """Bytes held."""
        return self._cache.used_bytes

    @property
    def pinned_bytes(self) -> int:
        """Bytes that running requests hold."""
        return self._cache.pinned_bytes

    @property
    def budget_bytes(self) -> int:
        """Bytes that may be held."""
        return self._cache.budget_bytes

    def __contains__(self, digest: object) -> bool:
        return digest in self._cache

    def resident(self) -> Iterator[Resident]:
        """Adapters in host memory, least recently used first."""
        for loaded, size in self._cache:
            yield Resident(loaded.version, loaded.digest, size, self._cache.pins(loaded.digest))

    def begin(self, version: VersionInfo, key_table: KeyTable) -> bool:
        """Start to load, unless that has begun; `hold` then joins it. True if it is in memory already."""
        if version.file_digest in self._cache:
            return True
        self._task(version, key_table)
        return False

    @asynccontextmanager
    async def hold(self, version: VersionInfo, key_table: KeyTable) -> AsyncIterator[LoadedAdapter]:
        """The adapter, kept in memory until the end; raises what the loader raises, or AdapterMemoryFull."""
        digest = version.file_digest
        loaded = self._cache.pin(digest)
        if loaded is None:
            loaded = await self._load(version, key_table)
        try:
            vouched = self._vouched.setdefault(digest, {loaded.version})
            if version.name not in vouched:
                await self._loader.vouch(version)
                vouched.add(version.name)
            yield replace(loaded, version=version.name)
        finally:
            self._cache.unpin(digest)
            self._metrics.held(Tier.HOST, self._cache.used_bytes, self._cache.count)

    async def prefetch(self, version: VersionInfo, key_table: KeyTable) -> Adapter:
        """Have the adapter in memory without holding it; raises as `hold` does. Evicts only what nobody holds."""
        async with self.hold(version, key_table) as loaded:
            return loaded.adapter

    def forget(self, digest: str) -> None:
        """Drop an adapter as soon as no request holds it, and its file."""
        if digest in self._loading:
            self._unwanted.add(digest)
        self._loader.forget(digest)
        self._cache.discard(digest)
        self._metrics.held(Tier.HOST, self._cache.used_bytes, self._cache.count)

    async def close(self) -> None:
        """Give up all loads; what was loaded is kept."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loader.close()

    async def _load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        """Join or start the load of this digest and pin the result."""
        digest = version.file_digest
        # Shielded: one caller who gives up must not take the load away from the others.
        loaded = await asyncio.shield(self._task(version, key_table))
        # Kept when it was loaded; unless something else needed the place since, or there was none.
        if self._cache.pin(digest) is None:
            self._ensure_room(loaded)
            self._keep(loaded)
            self._cache.pin(digest)
        if digest in self._unwanted:
            self._cache.discard(digest)
        return loaded

    def _task(self, version: VersionInfo, key_table: KeyTable) -> asyncio.Task[LoadedAdapter]:
        """The one load of this digest."""
        digest = version.file_digest
        task = self._loading.get(digest)
        if task is None:
            task = asyncio.create_task(self._loader.load(version, key_table), name=digest)
            self._loading[digest] = task
            self._unwanted.discard(digest)
            task.add_done_callback(self._load_ended)
        return task

    def _load_ended(self, task: asyncio.Task[LoadedAdapter]) -> None:
        """Keep what was loaded, also if every caller has given up; those who wait get the error too."""
        del self._loading[task.get_name()]
        if task.cancelled() or task.exception() is not None:
            return
        loaded = task.result()
        if loaded.digest in self._unwanted:
            self._loader.forget(loaded.digest)
            return
        if loaded.digest in self._cache:
            return
        if self._cache.pinned_bytes + loaded.adapter.size_bytes <= self.budget_bytes:
            self._keep(loaded)

    def _keep(self, loaded: LoadedAdapter) -> None:
        size = loaded.adapter.size_bytes
        self._cache.evict(room_bytes=size)
        self._cache.add(loaded.digest, loaded, size)
        self._metrics.held(Tier.HOST, self._cache.used_bytes, self._cache.count)

    def _ensure_room(self, loaded: LoadedAdapter) -> None:
        size, pinned = loaded.adapter.size_bytes, self._cache.pinned_bytes
        if pinned + size > self.budget_bytes:
            raise AdapterMemoryFull(
                f"{loaded.version} takes {size} bytes, {pinned} of {self.budget_bytes} are held by running requests; "
                "try again, or raise TERROIR_INFERENCE_ADAPTER_MEMORY_BYTES",
                retry_after_seconds=1.0 if size <= self.budget_bytes else None,
            )

    def _gone(self, loaded: LoadedAdapter) -> None:
        self._vouched.pop(loaded.digest, None)
        self._metrics.evicted(Tier.HOST)
