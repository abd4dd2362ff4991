"""Everything between the registry and the device, put together: tiers, names, watch and prefetching."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from terroir.common.clock import Clock
from terroir.common.signatures import Verifier
from terroir.inference.adapters.device_tier import Device, DeviceTier
from terroir.inference.adapters.directory import Directory
from terroir.inference.adapters.disk_cache import DiskCache
from terroir.inference.adapters.following import Follower
from terroir.inference.adapters.loading import AdapterLoader
from terroir.inference.adapters.popularity import Popularity
from terroir.inference.adapters.prefetching import Prefetcher
from terroir.inference.adapters.reacting import ChangeListener, RegistryReactions
from terroir.inference.adapters.registry_gateway import RegistryGateway
from terroir.inference.adapters.residency import Residency
from terroir.inference.adapters.signature_policy import SignaturePolicy
from terroir.inference.adapters.styling import Base, Stylist
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.warming import Warmer
from terroir.inference.settings import InferenceSettings

_WARM_SHARE = 0.5
"""Of host memory, for what popular regions need; the rest is for what requests name themselves."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class HotLoad:
    """The parts that others use."""

    stylist: Stylist
    residency: Residency
    device: DeviceTier
    follower: Follower
    prefetcher: Prefetcher
    registry: RegistryGateway
    directory: Directory
    listeners: list[ChangeListener]
    """Who else wants to hear of the registry's changes."""

    def engine_ready(self, base: Base) -> None:
        """The engine has loaded the base: what was wanted can be fetched for it."""
        self.prefetcher.begin(base)

    def engine_lost(self) -> None:
        """The engine ended; called before anything is sent to its successor."""
        self.device.reset()


@asynccontextmanager
async def hot_load(
    settings: InferenceSettings, source: RegistryGateway, device: Device, clock: Clock, metrics: TierMetrics
) -> AsyncIterator[HotLoad]:
    """Build the parts, run the watch and the prefetching until the end. Needs no registry to start."""
    disk = DiskCache(settings.data_dir / "inference" / "adapters", settings.adapter_disk_bytes, metrics)
    await asyncio.to_thread(disk.open)
    loader = AdapterLoader(
        source, disk, metrics, clock, SignaturePolicy(settings.signature_policy, Verifier(settings.trusted_keys)),
        max_rank=settings.max_rank, max_bytes=settings.adapter_memory_bytes,
    )  # fmt: skip
    residency = Residency(loader, settings.adapter_memory_bytes, metrics)
    on_device = DeviceTier(device, settings.adapter_device_bytes, metrics)
    directory, popularity = Directory(source, clock, metrics), Popularity[str](clock)
    prefetcher = Prefetcher(directory, residency, on_device, metrics)
    warmer = Warmer(
        directory, popularity, prefetcher, always=settings.warm_regions, most=settings.prefetched_regions,
        budget_bytes=int(settings.adapter_memory_bytes * _WARM_SHARE),
        interval_seconds=settings.prefetch_interval_seconds,
    )  # fmt: skip
    listeners: list[ChangeListener] = []
    reactions = RegistryReactions(directory, residency, on_device, prefetcher, warmer, listeners)
    follower = Follower(source, reactions, metrics)
    stylist = Stylist(directory, residency, on_device, popularity, metrics)
    tasks = [asyncio.create_task(part.run(), name=type(part).__name__) for part in (follower, prefetcher, warmer)]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield HotLoad(stylist, residency, on_device, follower, prefetcher, source, directory, listeners)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await residency.close()


def _report(task: asyncio.Task[None]) -> None:
    """A part that ended by itself is a defect: pictures still come, but nothing is fetched ahead any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("hot load ended", part=task.get_name(), exc_info=error)
