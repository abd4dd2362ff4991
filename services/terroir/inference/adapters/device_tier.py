"""The directory of what is in the device's memory: kept here, on the event loop, and obeyed by the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

from terroir.common.errors import Unavailable
from terroir.inference.adapters.pinned_lru import PinnedLru
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.tiers import Tier
from terroir.inference.errors import AdapterDeviceMemoryFull
from terroir.lora.adapter import Adapter

_NUMBER_BYTES: Final = 4


class Device(Protocol):
    """Who keeps adapters in device memory; commands reach it in order."""

    def put(self, digest: str, adapter: Adapter) -> None:
        """Keep an adapter until `drop`; raises Unavailable if there is no engine."""
        ...

    def drop(self, digest: str) -> None:
        """Forget an adapter that no unfinished job names; ignored if there is no engine."""
        ...


class DeviceTier:
    """Adapters by digest in device memory, pinned while jobs draw with them. One event loop owns it.

    Because commands are ordered, an adapter is there for every job sent after its put.
    """

    def __init__(self, device: Device, budget_bytes: int, metrics: TierMetrics) -> None:
        self._device = device
        self._budget_bytes = budget_bytes
        self._metrics = metrics
        self._life = 0
        self._cache = self._empty()
        metrics.budget(Tier.DEVICE, budget_bytes)

    @property
    def used_bytes(self) -> int:
        """Bytes held."""
        return self._cache.used_bytes

    @property
    def budget_bytes(self) -> int:
        """Bytes that may be held."""
        return self._budget_bytes

    def __contains__(self, digest: object) -> bool:
        return digest in self._cache

    @asynccontextmanager
    async def hold(self, adapters: Mapping[str, Adapter]) -> AsyncIterator[None]:
        """Have all of them, by digest, on the device until the end, which comes after the job's.

        Raises AdapterDeviceMemoryFull, before anything is sent, or Unavailable.
        """
        cache = self._cache
        pinned = [digest for digest in adapters if cache.pin(digest) is not None]
        try:
            missing = {digest: adapter for digest, adapter in adapters.items() if digest not in pinned}
            self._ensure_room(cache, adapters, missing)
            for digest, adapter in missing.items():
                cache.evict(room_bytes=self._size(adapter))
                self._put(digest, adapter)
                cache.pin(digest)
                pinned.append(digest)
            yield
        finally:
            # Of the engine's life in which they were pinned: an engine that was restarted has none of them.
            for digest in pinned:
                cache.unpin(digest)
            self._metrics.held(Tier.DEVICE, self._cache.used_bytes, self._cache.count)

    def prefetch(self, digest: str, adapter: Adapter) -> bool:
        """Put an adapter on the device if that evicts nothing; whether it is there now."""
        if digest in self._cache:
            return True
        if self._cache.used_bytes + self._size(adapter) > self._budget_bytes:
            return False
        try:
            self._put(digest, adapter)
        except Unavailable:
            return False
        return True

    def forget(self, digest: str) -> None:
        """Drop an adapter as soon as no job draws with it."""
        self._cache.discard(digest)
        self._metrics.held(Tier.DEVICE, self._cache.used_bytes, self._cache.count)

    def reset(self) -> None:
        """The engine ended, and all it had with it."""
        self._life += 1
        self._cache = self._empty()
        self._metrics.held(Tier.DEVICE, 0, 0)

    def _empty(self) -> PinnedLru[str]:
        return PinnedLru(self._budget_bytes, partial(self._gone, self._life))

    def _put(self, digest: str, adapter: Adapter) -> None:
        self._device.put(digest, adapter)
        self._cache.add(digest, digest, self._size(adapter))
        self._metrics.put_on_device()
        self._metrics.held(Tier.DEVICE, self._cache.used_bytes, self._cache.count)

    def _size(self, adapter: Adapter) -> int:
        """As the engine keeps it: the factors of every kind, in fp32."""
        tensors = (tensor for module in adapter.modules.values() for tensor in module.tensors.values())
        return sum(tensor.size for tensor in tensors) * _NUMBER_BYTES

    def _ensure_room(
        self, cache: PinnedLru[str], all_of: Mapping[str, Adapter], missing: Mapping[str, Adapter]
    ) -> None:
        needed, pinned = sum(map(self._size, missing.values())), cache.pinned_bytes
        if pinned + needed > self._budget_bytes:
            fits_alone = sum(map(self._size, all_of.values())) <= self._budget_bytes
            raise AdapterDeviceMemoryFull(
                f"the request's adapters need {needed} more bytes on the device, {pinned} of {self._budget_bytes} are "
                f"held by running requests and by it; {'try again, ' if fits_alone else ''}use fewer or smaller "
                "adapters, or raise TERROIR_INFERENCE_ADAPTER_DEVICE_BYTES",
                retry_after_seconds=1.0 if fits_alone else None,
            )

    def _gone(self, life: int, digest: str) -> None:
        if life == self._life:
            self._device.drop(digest)
            self._metrics.evicted(Tier.DEVICE)
