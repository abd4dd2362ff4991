"""Carries out preparations: chunk by chunk, set by set, on every server that has rows to spare.

A server claims a chunk before it draws it, and each set before that; a claim whose holder is silent falls to another
server, which finds the sets that are there. So what was drawn stays, and nothing is drawn twice.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import NotFound, TerroirError, Unavailable
from terroir.inference.admission.priority import Priority
from terroir.inference.covers.claims import claimed
from terroir.inference.covers.contents import Content
from terroir.inference.covers.errors import PreparationNotFound
from terroir.inference.covers.filling import Filled, Filler, Order, Outcome, candidates
from terroir.inference.covers.ladder import Lack
from terroir.inference.covers.ladders import Ladders
from terroir.inference.covers.metrics import CoverMetrics
from terroir.inference.covers.preparation import Preparation, SetFailure, State, Tally
from terroir.inference.covers.preparations import Preparations
from terroir.inference.covers.slots import Slots
from terroir.inference.covers.units import Unit, content_digest
from terroir.store.errors import StoreError
from terroir.store.leases import Leases

PLACES: Final = {Priority.HIGH: 0, Priority.NORMAL: 2, Priority.BACKGROUND: 3}
"""Among those who wait for a slot; what callers miss has 1."""
_LOOK_SECONDS: Final = 1.0
"""Between two looks for new preparations, and for the end of those that run."""
_PAUSE_SECONDS: Final = 1.0
"""Before a set is tried again that could not be drawn for a reason that passes."""
_ANNOUNCED_SECONDS: Final = 60.0
_ENDED: Final = 256
"""Tallies of ended preparations that are remembered."""
_log = structlog.get_logger()


@dataclass
class _Running:
    preparation: Preparation
    contents: Sequence[Content]
    done: dict[int, Tally] = field(default_factory=dict)
    """Chunks that are done, wherever."""
    own: dict[int, Tally] = field(default_factory=dict)
    """Chunks under way here."""
    under_way: int = 0
    """Pictures of sets that are drawn here now."""
    spent: bool = False
    """Whether a set was left out for the budget."""
    stopped: bool = False

    @property
    def tally(self) -> Tally:
        # A chunk may be done although its last write met an error here: it counts once.
        return sum((self.own | self.done).values(), Tally())


class Preparer:
    """One loop over all preparations that have not ended. One event loop owns it."""

    def __init__(
        self, preparations: Preparations, ladders: Ladders, filler: Filler, slots: Slots, leases: Leases,
        metrics: CoverMetrics, clock: Clock,
    ) -> None:  # fmt: skip
        self._preparations = preparations
        self._ladders = ladders
        self._filler = filler
        self._slots = slots
        self._leases = leases
        self._metrics = metrics
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._tallies: OrderedDict[str, Tally] = OrderedDict()
        self._heard = 0
        self._announced: dict[str, float] = {}
        """Lines of the log whose preparation was not seen yet."""
        self._woken = asyncio.Event()

    def added(self) -> None:
        """A preparation began: look now."""
        self._woken.set()

    async def tally(self, preparation: Preparation) -> Tally:
        """How far it is; chunks that other servers draw count once they are done. Raises StoreUnavailable."""
        running = self._running.get(preparation.id)
        if running is not None and not preparation.ended:
            return running.tally
        known = self._tallies.get(preparation.id)
        if known is None:
            known = sum((await self._done(preparation, {})).values(), Tally())
            if preparation.ended:
                self._tallies[preparation.id] = known
                while len(self._tallies) > _ENDED:
                    self._tallies.popitem(last=False)
        return known

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as working:
            while True:
                try:
                    for running in await self._new():
                        working.create_task(self._carry_out(running), name=running.preparation.name)
                except (StoreError, TerroirError) as error:
                    _log.warning("preparations not looked at", reason=error.reason)
                for running in list(self._running.values()):
                    await self._look(running)
                self._woken.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._woken.wait()

    async def _new(self) -> list[_Running]:
        """Preparations that have not ended and are not carried out here."""
        now = self._clock.monotonic()
        for number, preparation_id in await asyncio.to_thread(lambda: list(self._preparations.logged(self._heard))):
            self._heard = number
            self._announced[preparation_id] = now
        found = []
        for preparation_id, at in list(self._announced.items()):
            try:
                preparation = await asyncio.to_thread(self._preparations.get, preparation_id)
            except PreparationNotFound:
                # Its writer is about to write it, or died before it could.
                if now - at > _ANNOUNCED_SECONDS:
                    del self._announced[preparation_id]
                continue
            if not preparation.ended:
                contents = await asyncio.to_thread(self._preparations.contents, preparation_id)
                running = _Running(preparation, contents, await self._done(preparation, {}))
                self._running[preparation_id] = running
                found.append(running)
            del self._announced[preparation_id]
        return found

    async def _done(self, preparation: Preparation, known: dict[int, Tally]) -> dict[int, Tally]:
        def read() -> dict[int, Tally]:
            numbers = [number for number in self._preparations.chunks(preparation.id) if number not in known]
            found = ((number, self._preparations.chunk(preparation.id, number)) for number in numbers)
            return {number: tally for number, tally in found if tally is not None}

        return known | await asyncio.to_thread(read)

    async def _look(self, running: _Running) -> None:
        """Hear of its end, and see to it where its time or its budget is over."""
        preparation = running.preparation
        why = ""
        if preparation.deadline is not None and self._clock.now().timestamp() >= preparation.deadline:
            why = "its deadline has passed"
        elif running.spent:
            why = f"its budget of {preparation.max_pictures} pictures is spent"
        try:
            if why:
                await asyncio.to_thread(self._preparations.end, preparation.id, State.CUT_SHORT, why)
            current = await asyncio.to_thread(self._preparations.get, preparation.id)
        except StoreError:
            return  # it is heard of at the next look
        if current.ended:
            running.stopped = True

    async def _carry_out(self, running: _Running) -> None:
        preparation = running.preparation
        try:
            while not running.stopped:
                try:
                    if await self._round(running):
                        await asyncio.to_thread(self._preparations.end, preparation.id, State.SUCCEEDED)
                        _log.info("covers prepared", preparation=preparation.name)
                        return
                    running.done = await self._done(preparation, running.done)
                except (StoreError, TerroirError) as error:
                    _log.warning("preparation waits", preparation=preparation.name, reason=error.reason)
                await asyncio.sleep(_PAUSE_SECONDS)
        except Exception:
            _log.exception("preparation failed", preparation=preparation.name)
        finally:
            self._running.pop(preparation.id, None)

    async def _round(self, running: _Running) -> bool:
        """Go over the chunks that are not done, those that nobody draws; whether all are done after it."""
        preparation = running.preparation
        for number in range(preparation.chunks):
            if running.stopped:
                return False
            if number in running.done:
                continue
            async with claimed(self._leases, self._preparations.claim_key(preparation.id, number)) as mine:
                if not mine:
                    continue
                finished = await asyncio.to_thread(self._preparations.chunk, preparation.id, number)
                if finished is None:
                    tally = await self._draw(running, number)
                    if tally is None:
                        return False
                    finished = await asyncio.to_thread(self._preparations.finish_chunk, preparation.id, number, tally)
                running.done[number] = finished
                running.own.pop(number, None)
        return len(running.done) == preparation.chunks

    async def _draw(self, running: _Running, number: int) -> Tally | None:
        """All sets of a chunk at once, as far as there are slots; None if the preparation ended before the last."""
        running.own[number] = Tally()
        async with asyncio.TaskGroup() as drawing:
            sets = [
                drawing.create_task(self._set(running, number, running.contents[at], region))
                for at, region in running.preparation.of_chunk(number)
            ]
        return running.own[number] if all(each.result() for each in sets) else None

    async def _set(self, running: _Running, number: int, content: Content, region: str) -> bool:
        """One set; false if the preparation ended before it was drawn."""
        while True:
            slot = await self._slots.take(PLACES[running.preparation.priority])
            try:
                filled = await self._within_budget(running, content, region)
            finally:
                slot.give_back()
            if filled is None or not filled.passes:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        if filled is None:
            return False
        self._metrics.filled(filled.outcome.value)
        running.own[number] += _counted(filled, content, region)
        return True

    async def _within_budget(self, running: _Running, content: Content, region: str) -> Filled | None:
        most, count = running.preparation.max_pictures, candidates(running.preparation.variants)
        running.spent = running.spent or 0 < most < running.tally.pictures + running.under_way + count
        if running.stopped or running.spent:
            return None
        running.under_way += count
        try:
            return await self._fill(running.preparation, content, region)
        finally:
            running.under_way -= count

    async def _fill(self, preparation: Preparation, content: Content, region: str) -> Filled:
        ladder = await self._ladders.of(region)
        if ladder.own is None:
            return _without_rung(ladder.lack, region)
        look = ladder.own.dress.look
        since = preparation.created_at if preparation.redraw else float("-inf")
        order = Order(
            Unit(content_digest(content.key), look.digest, preparation.shape), look, preparation.variants, since
        )
        return await self._filler.fill(order)


def _without_rung(lack: Lack, region: str) -> Filled:
    passes = lack in (Lack.REGISTRY_UNREACHABLE, Lack.MODEL_LOADING)
    error = (
        Unavailable(f"{region} can't be looked up now", reason="REGISTRY_UNREACHABLE")
        if passes
        else NotFound(f"{region} has no style that can be drawn ({lack.value})", reason="REGION_WITHOUT_STYLE")
    )
    return Filled(Outcome.FAILED, 0, error.reason, str(error), passes=passes)


def _counted(filled: Filled, content: Content, region: str) -> Tally:
    if filled.outcome is Outcome.FAILED:
        failure = SetFailure(content.key, region, filled.reason, filled.message)
        return Tally(failed=1, pictures=filled.pictures, failures=(failure,))
    drawn = filled.outcome is Outcome.DRAWN
    return Tally(drawn=int(drawn), kept=int(not drawn), pictures=filled.pictures)
