"""What callers missed and waits to be drawn, most asked for first. Nothing of it is kept: a miss asks again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.inference.covers.demand import Demand
from terroir.inference.covers.filling import Filler, Order, Outcome
from terroir.inference.covers.finding import Wanted
from terroir.inference.covers.ladder import Ladder
from terroir.inference.covers.memory import ByteCache
from terroir.inference.covers.metrics import CoverMetrics
from terroir.inference.covers.slots import Slot, Slots
from terroir.inference.covers.units import Shape, Unit

MISS_PLACE: Final = 1
"""Among those who wait for a slot: after urgent preparations, before all others."""
_REFILLED: Final = 512
"""Contents of a region that are drawn anew, unasked, when its style changes."""
_FUTILE_SECONDS: Final = 60.0
"""A unit that can't be drawn is not tried again before."""
_FUTILE_BYTES: Final = 8 * 1024 * 1024
_log = structlog.get_logger()


@dataclass
class Missed:
    """A unit that callers missed."""

    wanted: Wanted
    asked: float
    """How often, or how popular it is."""
    since: float
    """Reading of the monotonic clock at the first of them."""


class Fills:
    """A bounded queue. One event loop owns it."""

    def __init__(self, demand: Demand, metrics: CoverMetrics, clock: Clock, *, capacity: int) -> None:
        """`capacity` 0 has nothing drawn that is missed."""
        self._demand = demand
        self._metrics = metrics
        self._clock = clock
        self._capacity = capacity
        self._waiting: dict[Unit, Missed] = {}
        self._drawing: set[Unit] = set()
        self._futile = ByteCache[Unit, bool](_FUTILE_BYTES)
        self._woken = asyncio.Event()
        metrics.watch_fills(lambda: len(self._waiting))

    def want(self, wanted: Wanted, asked: float = 1.0) -> bool:
        """Have a unit drawn some time; whether it will be."""
        unit = wanted.unit
        if unit in self._drawing:
            return True
        missed = self._waiting.get(unit)
        if missed is not None:
            missed.asked += asked
            if wanted.variants > missed.wanted.variants:
                missed.wanted = wanted
            return True
        now = self._clock.monotonic()
        if self._capacity == 0 or self._futile.get(unit, now):
            return False
        if len(self._waiting) >= self._capacity:
            self._metrics.dropped()
            return False
        self._waiting[unit] = Missed(wanted, asked, now)
        self._woken.set()
        return True

    def refill(self, ladder: Ladder) -> None:
        """A region's own style changed: forget what waits in the old one, have what is most asked for drawn anew."""
        worn = {look.digest for look in ladder.own.dress.looks()} if ladder.own is not None else set()
        self._waiting = {
            unit: missed for unit, missed in self._waiting.items()
            if missed.wanted.region != ladder.region or unit.look in worn
        }  # fmt: skip
        if ladder.own is None:
            return
        look = ladder.own.dress.look
        for asked, entry in self._demand.of_region(ladder.region, _REFILLED):
            unit = Unit(entry.content, look.digest, Shape(entry.width, entry.height, entry.format))
            self.want(Wanted(unit, look, ladder.region, entry.count), asked)

    async def any(self) -> None:
        """Wait until something is missed."""
        while not self._waiting:
            self._woken.clear()
            await self._woken.wait()

    def take(self) -> Missed | None:
        """What is missed most; it counts as being drawn until `done`."""
        if not self._waiting:
            return None
        missed = self._waiting.pop(max(self._waiting, key=lambda unit: self._waiting[unit].asked))
        self._drawing.add(missed.wanted.unit)
        return missed

    def done(self, missed: Missed, *, futile: bool) -> None:
        """It is drawn, or was tried; what is `futile` is not queued again for a while."""
        self._drawing.discard(missed.wanted.unit)
        if futile:
            self._futile.put(missed.wanted.unit, True, 0, self._clock.monotonic() + _FUTILE_SECONDS)


class FillLoop:
    """Draws what is missed. One event loop owns it."""

    def __init__(self, fills: Fills, filler: Filler, slots: Slots, metrics: CoverMetrics, clock: Clock) -> None:
        self._fills = fills
        self._filler = filler
        self._slots = slots
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as drawing:
            while True:
                await self._fills.any()
                slot = await self._slots.take(MISS_PLACE)
                # Chosen now, not when the slot was asked for: somebody may have come whom more people miss.
                missed = self._fills.take()
                if missed is None:
                    slot.give_back()
                else:
                    drawing.create_task(self._fill(missed, slot))

    async def _fill(self, missed: Missed, slot: Slot) -> None:
        wanted, futile = missed.wanted, True
        try:
            filled = await self._filler.fill(Order(wanted.unit, wanted.look, wanted.variants))
            futile = filled.outcome is Outcome.FAILED and not filled.passes
        finally:
            self._fills.done(missed, futile=futile)
            slot.give_back()
        if filled.outcome is Outcome.FAILED:
            _log.info("cover not drawn", key=wanted.unit.key, reason=filled.reason)
        lag = self._clock.monotonic() - missed.since if filled.outcome is Outcome.DRAWN else None
        self._metrics.filled(filled.outcome.value, lag)
