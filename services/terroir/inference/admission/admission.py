"""Who may draw now, who waits, and who is refused at once."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from terroir.common.clock import Clock
from terroir.common.errors import DeadlineExceeded, TerroirError
from terroir.inference.admission.cost_model import Capacity, CostModel, Work
from terroir.inference.admission.metrics import AdmissionMetrics, Promise
from terroir.inference.admission.priority import Priority
from terroir.inference.engine.messages import TickCost
from terroir.inference.errors import DeadlineUnmeetable, QueueFull

SAFETY: Final = 1.25
"""A deadline is called unmeetable only where even 1 / SAFETY of the predicted time is too long."""
LEAST_RETRY_SECONDS: Final = 0.5
_SAME_MOMENT_SECONDS: Final = 0.1
"""gRPC cancels a call at its deadline by a clock of its own, which may be a little earlier."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Demand:
    """What a request asks of admission."""

    work: Work
    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    """Reading of the clock's monotonic seconds."""


class Place:
    """A request's place from its arrival to its end."""

    def __init__(
        self, admission: Admission, demand: Demand, position: int, predicted_seconds: float, trust: float
    ) -> None:
        self.demand = demand
        self.position = position
        """Requests before this one when it came."""
        self.predicted_seconds = predicted_seconds
        """Seconds from arrival to the pictures, as predicted then."""
        self.trust = trust
        """How much of a prediction was held against its deadline."""
        self.work = demand.work
        """What is left to do."""
        self.arrived = admission.now()
        self.due: float | None = None
        """When its turn would have come, had it been ready; never earlier than `arrived`."""
        self.is_ready = False
        self.admitted = False
        self.settled = False
        """Whether what became of its deadline was counted."""
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when its turn has come, or failed with why it never will."""
        self._admission = admission

    async def while_waiting(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do work that the request needs before its turn; cancelled, and raises, when the request loses its place."""
        task = asyncio.ensure_future(work)
        try:
            both: set[asyncio.Future[Any]] = {task, self.decided}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self.decided.done():
                self.decided.result()
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def turn(self) -> None:
        """Say that all is ready and wait for the turn.

        Raises DeadlineExceeded, DeadlineUnmeetable where it waited too long to be in time, or QueueFull when a higher
        one took the place.
        """
        self.is_ready = True
        self._admission.call_next()
        # Not awaited itself: a caller who gives up would cancel it under the hands of whoever decides.
        await asyncio.wait({self.decided})
        self.decided.result()

    def stepped(self, step: int, total: int) -> None:
        """Say how far the drawing is."""
        self.work = replace(self.work, steps=max(0, total - step))


class Admission:
    """At most so many requests and rows draw together, a bounded number waits. One event loop owns it.

    Strictly higher priorities go first, first come, first served within one. Only requests that are ready compete for a
    turn, so one whose adapters load slowly keeps its place but never blocks those behind it. One that is ready and has
    more rows than are free does block them, or it would starve, and so does one for whose sake somebody who draws would
    miss a deadline. When as many wait as may, a higher one takes the place of the newest of the lowest, which is
    refused.
    """

    def __init__(
        self, capacity: Capacity, max_waiting: int, costs: CostModel, clock: Clock, metrics: AdmissionMetrics
    ) -> None:
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._costs = costs
        self._clock = clock
        self._metrics = metrics
        self._active: list[Place] = []
        self._waiting: list[Place] = []
        self._learnt: TickCost | None = None

    @property
    def max_waiting(self) -> int:
        """Requests that may wait."""
        return self._max_waiting

    @property
    def active(self) -> int:
        """Requests that draw."""
        return len(self._active)

    @property
    def active_rows(self) -> int:
        """Rows that draw."""
        return sum(place.work.rows for place in self._active)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def now(self) -> float:
        """The clock that deadlines are read on."""
        return self._clock.monotonic()

    def learn(self, cost: TickCost) -> None:
        """Take a tick that was made; all requests that took part report it, and it counts once."""
        if cost != self._learnt:
            self._learnt = cost
            self._costs.learn(cost)

    def loaded(self, seconds: float, hidden: float) -> None:
        """A request's adapters took `seconds` to come, of which `hidden` passed while it had to wait anyway."""
        self._metrics.loaded(seconds, hidden)

    def drawn(self, place: Place, before: float, after: float) -> None:
        """A request has its pictures, `before` its first tick and `after` its last one it took so many seconds."""
        place.settled = True
        self._costs.learn_around(place.demand.work, before, after)
        now, deadline = self.now(), place.demand.deadline
        self._metrics.predicted(place.predicted_seconds, now - place.arrived)
        self._metrics.drawn(place.demand.priority, now - place.arrived)
        if deadline is not None:
            self._metrics.promised(Promise.KEPT if now <= deadline else Promise.BROKEN)

    @asynccontextmanager
    async def enter(self, demand: Demand) -> AsyncIterator[Place]:
        """Take a place, which is given back at the end.

        Raises QueueFull, DeadlineUnmeetable (both with a time after which to try again) or DeadlineExceeded.
        """
        place = self._take_place(demand)
        alarm = None
        if demand.deadline is not None:
            left = max(0.0, demand.deadline - self.now())
            alarm = asyncio.get_running_loop().call_later(left, self._expire, place)
        try:
            self.call_next()
            yield place
        finally:
            if alarm is not None:
                alarm.cancel()
            place.decided.cancel()
            self._settle(place)
            if place.admitted:
                self._active.remove(place)
            elif place in self._waiting:
                self._waiting.remove(place)
            self.call_next()

    def call_next(self) -> None:
        """Give free turns to those who are ready."""
        now = self.now()
        for due in self._waiting[: max(0, self._capacity.requests - len(self._active))]:
            due.due = now if due.due is None else due.due
        while (place := self._next()) is not None:
            # It may have waited longer than was predicted: drawing in vain would only keep others waiting.
            if late := self._late(place.demand, self._predict(place.work, []), place.trust):
                place.settled = isinstance(late, DeadlineUnmeetable)
                self._end(place, late)
                continue
            self._waiting.remove(place)
            self._active.append(place)
            place.admitted = True
            self._metrics.admitted(place.demand.priority, now - place.arrived)
            place.decided.set_result(None)

    def _next(self) -> Place | None:
        if len(self._active) >= self._capacity.requests:
            return None
        place = next((place for place in self._waiting if place.is_ready), None)
        if place is None or (self._active and self.active_rows + place.work.rows > self._capacity.rows):
            return None
        return None if self._spoils(place) else place

    def _spoils(self, place: Place) -> bool:
        """Whether somebody who draws, and is no less important, would miss a deadline for a new one's sake.

        Else all of a crowd with equal deadlines would be let in, slow each other down, and be late together.
        """
        if all(other.demand.deadline is None for other in self._active):
            return False
        works, now = [other.work for other in self._active], self.now()
        without, beside = (self._costs.ends(drawing, self._capacity) for drawing in (works, [*works, place.work]))
        for other, alone, together in zip(self._active, without, beside, strict=False):
            deadline, priority = other.demand.deadline, other.demand.priority
            if deadline is not None and priority <= place.demand.priority and alone <= deadline - now < together:
                return True
        return False

    def _take_place(self, demand: Demand) -> Place:
        try:
            return self._place_for(demand)
        except TerroirError as error:
            self._metrics.refused(demand.priority, error.reason)
            raise

    def _place_for(self, demand: Demand) -> Place:
        displaced = None
        if len(self._active) + len(self._waiting) >= self._capacity.requests + self._max_waiting:
            displaced = self._waiting[-1] if self._waiting else None
            if displaced is None or displaced.demand.priority <= demand.priority:
                raise self._full()
        position = bisect_right(self._waiting, demand.priority, key=lambda place: place.demand.priority)
        predicted = self._predict(demand.work, self._waiting[:position])
        trust = self._costs.trust(demand.work.pixels)
        if late := self._late(demand, predicted, trust):
            self._costs.doubt(demand.work.pixels)
            raise late
        if trust < 1:
            self._costs.believe(demand.work.pixels)
        if displaced is not None:
            self._end(displaced, self._full())
        place = Place(self, demand, position, predicted, trust)
        self._waiting.insert(position, place)
        return place

    def _predict(self, work: Work, before: Sequence[Place]) -> float:
        running, waiting = [place.work for place in self._active], [place.work for place in before]
        return self._costs.predict(work, running, waiting, self._capacity)

    def _late(self, demand: Demand, predicted: float, trust: float) -> TerroirError | None:
        """Why a request can't have its pictures in time, if so."""
        left = math.inf if demand.deadline is None else demand.deadline - self.now()
        if left <= 0:
            return DeadlineExceeded("the deadline of this call has passed; give it more time")
        if predicted * trust <= left * SAFETY:
            return None
        alone = self._costs.alone(demand.work)
        self._metrics.promised(Promise.DECLINED if alone <= left * SAFETY else Promise.IMPOSSIBLE)
        retry = max(LEAST_RETRY_SECONDS, predicted - left)
        advice = (
            f"try again in {retry:.1f} s"
            if alone <= left * SAFETY
            else "give the call more time, or ask for fewer steps, fewer pictures or a smaller size"
        )
        return DeadlineUnmeetable(
            f"the pictures are expected in {predicted:.1f} s ({alone:.1f} s on an idle server), the deadline of the "
            f"call is in {left:.1f} s; {advice}",
            retry_after_seconds=retry,
        )

    def _expire(self, place: Place) -> None:
        waited = self.now() - place.arrived
        self._end(
            place,
            DeadlineExceeded(f"the deadline passed after {waited:.1f} s in the queue; give the call more time"),
        )

    def _end(self, place: Place, error: TerroirError) -> None:
        """Refuse a request that waits."""
        if place.decided.done():
            return
        self._waiting.remove(place)
        self._metrics.refused(place.demand.priority, error.reason)
        place.decided.set_exception(error)
        place.decided.exception()  # read, for when the caller gave up before it could hear of it

    def _settle(self, place: Place) -> None:
        """Count a deadline that passed before the pictures came."""
        deadline = place.demand.deadline
        if deadline is not None and not place.settled and self.now() >= deadline - _SAME_MOMENT_SECONDS:
            self._metrics.promised(Promise.BROKEN)

    def _full(self) -> QueueFull:
        retry = LEAST_RETRY_SECONDS
        if self._active:
            first = min(self._active, key=lambda place: place.work.steps)
            others = [place.work for place in self._active if place is not first]
            retry = max(retry, self._costs.predict(first.work, others, [], self._capacity))
        return QueueFull(
            f"{len(self._active)} requests draw and {len(self._waiting)} wait, at most {self._max_waiting} may wait; "
            f"try again in {retry:.1f} s or raise TERROIR_INFERENCE_MAX_QUEUE_SIZE",
            retry_after_seconds=retry,
        )
