"""Covers put together from the settings and the parts of inference that they need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from terroir._proto.inference.v1 import cover_pb2_grpc
from terroir.common.clock import Clock
from terroir.common.server import Server
from terroir.inference.adapters.hot_load import HotLoad
from terroir.inference.adapters.sources import Change
from terroir.inference.adapters.styling import Base
from terroir.inference.covers.api import CoverServicer
from terroir.inference.covers.choosing import Chooser, FirstOnes
from terroir.inference.covers.clip_choosing import ClipChooser
from terroir.inference.covers.contents import Contents
from terroir.inference.covers.demand import Demand
from terroir.inference.covers.domain import Covers
from terroir.inference.covers.filling import Filler
from terroir.inference.covers.fills import FillLoop, Fills
from terroir.inference.covers.finding import Finder
from terroir.inference.covers.invalidations import Invalidations
from terroir.inference.covers.ladders import Ladders
from terroir.inference.covers.metrics import CoverMetrics
from terroir.inference.covers.preparations import Preparations
from terroir.inference.covers.preparing import Preparer
from terroir.inference.covers.shelf import Shelf
from terroir.inference.covers.slots import Slots
from terroir.inference.errors import ModelLoadFailed, ModelLoading
from terroir.inference.generation import Generator
from terroir.inference.request.wish import Limits
from terroir.inference.settings import InferenceSettings
from terroir.store.interface import ObjectStore
from terroir.store.leases import Leases
from terroir.store.metrics import StoreMetrics
from terroir.store.opening import location_of, open_store
from terroir.tiny import BASE_DIR, CLIP_DIR

COVER_SERVICE: Final = "terroir.inference.v1.CoverService"


@asynccontextmanager
async def serve_covers(
    settings: InferenceSettings, server: Server, generator: Generator, hot: HotLoad, clock: Clock
) -> AsyncIterator[None]:  # fmt: skip
    """Add CoverService and keep it going until the end.

    The store is not asked at start: without it, covers are answered from memory and by the callers' defaults.
    """
    chooser, store = _chooser(settings, hot), open_store(location_of(settings))
    StoreMetrics(server.registry).watch(store)
    covers = assemble(settings, store, server, generator, hot, chooser, clock)
    server.add(
        CoverServicer(covers, server.principals), cover_pb2_grpc.add_CoverServiceServicer_to_server, COVER_SERVICE
    )
    hot.listeners.append(_Hears(covers.ladders))
    try:
        async with covers.working():
            yield
    finally:
        if isinstance(chooser, ClipChooser):
            await chooser.close()


def assemble(
    settings: InferenceSettings, store: ObjectStore, server: Server, generator: Generator, hot: HotLoad,
    chooser: Chooser, clock: Clock,
) -> Covers:  # fmt: skip
    """The parts, none of them running."""
    metrics, demand = CoverMetrics(server.registry), Demand(clock)
    fills = Fills(demand, metrics, clock, capacity=settings.cover_fills_queued)
    loaded = _LastLoaded(generator)
    ladders = Ladders(hot.directory, hot.registry, loaded.base, store, clock, changed=fills.refill)
    shelf, contents, invalidations = Shelf(store), Contents(store), Invalidations(store, clock)
    finder = Finder(
        ladders, shelf, invalidations, fills, demand, metrics, clock, memory_bytes=settings.cover_memory_bytes
    )
    leases, slots = Leases(store, clock), Slots(settings.cover_sets_at_once)
    filler = Filler(contents, shelf, finder, generator.prepare, chooser, leases, clock)
    preparations = Preparations(store, clock)
    preparer = Preparer(preparations, ladders, filler, slots, leases, metrics, clock)
    return Covers(
        finder, ladders, contents, invalidations, FillLoop(fills, filler, slots, metrics, clock), preparations,
        preparer, loaded.limits, clock, settings.cover_variants,
    )  # fmt: skip


class _LastLoaded:
    """What an engine had loaded that ended and comes back: covers are answered meanwhile."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._known: tuple[Base, Limits] | None = None

    def base(self) -> Base:
        """Raises ModelLoading or ModelLoadFailed before the first one is loaded."""
        return self._both()[0]

    def limits(self) -> Limits:
        """As `base`."""
        return self._both()[1]

    def _both(self) -> tuple[Base, Limits]:
        try:
            self._known = self._generator.base(), self._generator.limits()
        except (ModelLoading, ModelLoadFailed):
            if self._known is None:
                raise
        return self._known


class _Hears:
    """Implements ChangeListener."""

    def __init__(self, ladders: Ladders) -> None:
        self._ladders = ladders

    def heard(self, change: Change) -> None:
        """A change of the registry."""
        self._ladders.react(change)

    def withdrawn(self, file_digest: str) -> None:
        """An adapter must not be shown any more."""
        self._ladders.withdrawn(file_digest)

    def missed(self) -> None:
        """Changes can't be told any more."""
        self._ladders.missed()


def _chooser(settings: InferenceSettings, hot: HotLoad) -> Chooser:
    """The embedded CLIP knows what the embedded base draws, and nothing else."""

    async def print_of(version: str) -> bytes | None:
        return await hot.registry.training_print((await hot.directory.version(version)).value)

    if settings.cover_judge_model is not None:
        return ClipChooser(settings.cover_judge_model, print_of)
    return ClipChooser(CLIP_DIR, print_of) if Path(settings.base_model) == BASE_DIR else FirstOnes()
