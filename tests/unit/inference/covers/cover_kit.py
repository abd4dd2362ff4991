"""Covers over a fake registry and a fake engine, on a real store in memory, with time in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.common.errors import TerroirError
from terroir.inference.adapters.directory import Directory
from terroir.inference.adapters.sources import CanaryInfo, Change, ChangeKind, Recipe
from terroir.inference.adapters.styling import Base
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.admission.priority import Priority
from terroir.inference.covers.contents import Content, Contents
from terroir.inference.covers.demand import Demand
from terroir.inference.covers.domain import Covers
from terroir.inference.covers.filling import Filler
from terroir.inference.covers.fills import FillLoop, Fills
from terroir.inference.covers.finding import Finder, Found, Query
from terroir.inference.covers.invalidations import Invalidations
from terroir.inference.covers.ladders import Ladders
from terroir.inference.covers.metrics import CoverMetrics
from terroir.inference.covers.preparation import Preparation
from terroir.inference.covers.preparations import Preparations
from terroir.inference.covers.preparing import Preparer
from terroir.inference.covers.shelf import Shelf
from terroir.inference.covers.slots import Slots
from terroir.inference.covers.units import Shape
from terroir.inference.delivery.picture_files import PictureFormat
from terroir.inference.delivery.progress import PictureMade
from terroir.inference.errors import ModelLoading
from terroir.inference.request.wish import Limits, RawWish
from terroir.store.interface import ObjectStore
from terroir.store.leases import Leases
from terroir.store.obstore_driver import MemoryStore
from tests.unit.inference.tier_kit import BASE, FakeRegistry, small_file, version_name

SHAPE = Shape(64, 64, PictureFormat.WEBP)
T = TypeVar("T")


class FakeCanaries:
    """Implements Canaries."""

    def __init__(self) -> None:
        self.known: dict[str, CanaryInfo] = {}

    async def canary(self, name: str) -> CanaryInfo | None:
        return self.known.get(name)


@dataclass
class FakeEngine:
    """Implements Draws: a picture is the words that it was asked for."""

    drawn: list[RawWish] = field(default_factory=list)
    failures: list[TerroirError] = field(default_factory=list)
    """Raised by the next drawings, one each."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    loading: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, raw: RawWish, picture_format: PictureFormat) -> AsyncIterator[object]:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.drawn.append(raw)
        worn = "+".join(f"{name}*{weight:g}" for name, weight, _ in raw.adapters)
        data = f"{raw.prompt}|{raw.negative_prompt}|{worn}|{raw.seeds[0]}".encode()
        yield PictureMade(0, raw.seeds[0], data, f"id-{len(self.drawn)}", "{}")

    def base(self) -> Base:
        if self.loading:
            raise ModelLoading("the base model is being loaded")
        return BASE

    def limits(self) -> Limits:
        self.base()
        return Limits(1 << 20, 64, 3.0)


class LastOnes:
    """Implements Chooser, so that a test sees that it was asked."""

    async def choose(self, _prompt: str, pictures: Sequence[bytes], count: int, _versions: Sequence[str]) -> list[int]:
        return list(range(len(pictures)))[::-1][:count]


class House:
    """One server; give it the store, registry and engine of another one to have two."""

    def __init__(
        self, *, store: ObjectStore | None = None, registry: FakeRegistry | None = None,
        engine: FakeEngine | None = None, clock: FixedClock | None = None, queued: int = 100, at_once: int = 2,
        memory_bytes: int = 1 << 24, patience_seconds: float = 20.0,
    ) -> None:  # fmt: skip
        self.store = store if store is not None else MemoryStore()
        self.registry, self.engine = registry or FakeRegistry(), engine or FakeEngine()
        self.clock, self.canaries, self.counters = clock or FixedClock(), FakeCanaries(), CollectorRegistry()
        metrics, demand = CoverMetrics(self.counters), Demand(self.clock)
        self.directory = Directory(self.registry, self.clock, TierMetrics(CollectorRegistry()))
        self.fills = Fills(demand, metrics, self.clock, capacity=queued)
        self.ladders = Ladders(
            self.directory,
            self.canaries,
            self.engine.base,
            self.store,
            self.clock,
            changed=self.fills.refill,
            patience_seconds=patience_seconds,
        )
        self.shelf, self.contents = Shelf(self.store), Contents(self.store)
        self.invalidations = Invalidations(self.store, self.clock)
        self.finder = Finder(
            self.ladders, self.shelf, self.invalidations, self.fills, demand, metrics, self.clock,
            memory_bytes=memory_bytes, store_seconds=patience_seconds,
        )  # fmt: skip
        leases, slots = Leases(self.store, self.clock), Slots(at_once)
        self.filler = Filler(self.contents, self.shelf, self.finder, self.engine, LastOnes(), leases, self.clock)
        self.preparations = Preparations(self.store, self.clock)
        self.preparer = Preparer(self.preparations, self.ladders, self.filler, slots, leases, metrics, self.clock)
        self.covers = Covers(
            self.finder, self.ladders, self.contents, self.invalidations,
            FillLoop(self.fills, self.filler, slots, metrics, self.clock), self.preparations, self.preparer,
            self.engine.limits, self.clock, 2,
        )  # fmt: skip

    def beside(self) -> House:
        """Another server on the same store, with the same registry and engine."""
        return House(store=self.store, registry=self.registry, engine=self.engine, clock=self.clock)

    def publish(self, number: int, adapter: str = "ink", **fields: Any) -> None:
        """A version of an adapter, the newest from now on."""
        self.registry.publish(version_name(number, adapter), small_file(100 * number + len(adapter)), **fields)

    def region(self, code: str, *adapters: str, prefix: str = "", within: Sequence[str] = ()) -> None:
        """A region whose recipe has adapters at weight 1."""
        worn = tuple((f"adapters/{adapter}", 1.0) for adapter in adapters)
        name = f"regions/{code}"
        further = tuple(f"regions/{each}" for each in within)
        self.registry.recipes[name] = Recipe(worn, prefix, "", (name,), name, further)

    def content(self, key: str, prompt: str = "") -> Content:
        """Words for a key, remembered."""
        content = Content(key, prompt or f"a picture of {key}")
        self.contents.put(content)
        return content

    async def ask(self, *keys: str, region: str = "CN", count: int = 1, **options: Any) -> list[Found]:
        """GetCovers for one region."""
        return await self.finder.find([Query(keys, f"regions/{region}" if region else "", count)], SHAPE, **options)

    async def one(self, key: str, region: str = "CN", **options: Any) -> Found:
        """The first cover of a content."""
        return (await self.ask(key, region=region, **options))[0]

    async def draw_missed(self) -> int:
        """Draw all that waits; how many sets that were."""
        drawn = 0
        while (missed := self.fills.take()) is not None:
            from terroir.inference.covers.filling import Order

            wanted = missed.wanted
            filled = await self.filler.fill(Order(wanted.unit, wanted.look, wanted.variants))
            self.fills.done(missed, futile=filled.outcome == "failed" and not filled.passes)
            drawn += filled.outcome == "drawn"
        return drawn

    async def changed(self, kind: ChangeKind, name: str) -> None:
        """A change of the registry, and all look-ups that it leads to."""
        self.ladders.react(Change("token", kind, name))
        await self.ladders.look_again()

    def counted(self, name: str, **labels: str) -> float:
        """Value of a metric; 0 if nothing was counted."""
        return self.counters.get_sample_value(f"terroir_inference_{name}", labels) or 0.0


def prepared(house: House, *keys: str, regions: Sequence[str] = ("CN",), **fields: Any) -> Preparation:
    """A preparation as PrepareCovers would make it."""
    known = {
        "variants": 1, "shape": SHAPE, "priority": Priority.NORMAL, "deadline": None, "max_pictures": 0,
        "redraw": False, "creator": "test", "created_at": house.clock.now().timestamp(), "id": "p1",
    } | fields  # fmt: skip
    names = tuple(f"regions/{code}" if code else "" for code in regions)
    return Preparation(contents=len(keys), regions=names, **known)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run it, for half a minute at most."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await scenario

    return asyncio.run(bounded())
