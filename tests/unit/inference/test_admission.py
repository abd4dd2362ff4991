"""The bounded queue: who draws, who waits, who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock, SystemClock
from terroir.common.errors import DeadlineExceeded, TerroirError
from terroir.inference.admission.admission import SAFETY, Admission, Demand, Place
from terroir.inference.admission.cost_model import Capacity, CostModel, Work
from terroir.inference.admission.metrics import AdmissionMetrics
from terroir.inference.admission.priority import Priority
from terroir.inference.engine.messages import TickCost
from terroir.inference.errors import DeadlineUnmeetable, QueueFull


class Desk:
    """An admission, its clock, and requests that come and go."""

    def __init__(self, requests: int = 1, rows: int = 1000, waiting: int = 10, tick: float = 0.0) -> None:
        self.clock = FixedClock()
        self.registry = CollectorRegistry()
        costs = CostModel([TickCost(64 * 64, 2, tick)] if tick else [])
        capacity = Capacity(requests, rows, 32)
        self.admission = Admission(capacity, waiting, costs, self.clock, AdmissionMetrics(self.registry))
        self._stacks: dict[Place, AsyncExitStack] = {}

    async def come(
        self, priority: Priority = Priority.NORMAL, *, ready: bool = True, rows: int = 2, seconds: float | None = None
    ) -> Place:
        deadline = None if seconds is None else self.clock.monotonic() + seconds
        demand = Demand(Work(64, 64, rows, 10, 1), priority, deadline)
        stack = AsyncExitStack()
        place = await stack.enter_async_context(self.admission.enter(demand))
        self._stacks[place] = stack
        if ready:
            await self.load(place)
        return place

    async def load(self, place: Place) -> None:
        """Its adapters are there; it asks for its turn."""
        place.asking = asyncio.ensure_future(place.turn())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    async def go(self, place: Place) -> None:
        asking = getattr(place, "asking", None)
        if asking is not None and not asking.done():
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
        elif asking is not None:
            asking.exception()
        await self._stacks.pop(place).aclose()

    async def close(self) -> None:
        for place in list(self._stacks):
            await self.go(place)
        assert (self.admission.active, self.admission.waiting, self.admission.active_rows) == (0, 0, 0)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def run(scenario: Callable[[Desk], Coroutine[Any, Any, None]], **fields: Any) -> None:
    """Play a scenario; at its end everybody goes and nothing may be left."""

    async def play() -> None:
        desk = Desk(**fields)
        await scenario(desk)
        await desk.close()

    asyncio.run(play())


def test_requests_beyond_the_active_ones_wait_in_order_and_the_next_is_refused() -> None:
    async def scenario(desk: Desk) -> None:
        places = [await desk.come() for _ in range(3)]
        assert [place.position for place in places] == [0, 0, 1]
        assert [place.admitted for place in places] == [True, False, False]
        with pytest.raises(QueueFull) as refused:
            await desk.come()
        assert refused.value.retry_after_seconds
        await desk.go(places[0])
        assert [place.admitted for place in places[1:]] == [True, False]
        assert desk.count("terroir_inference_refused_requests_total", reason="QUEUE_FULL", priority="NORMAL") == 1
        assert desk.count("terroir_inference_admitted_requests_total", priority="NORMAL") == 2

    run(scenario, waiting=2)


def test_a_higher_priority_goes_first_and_within_one_who_came_first() -> None:
    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        order = [Priority.BACKGROUND, Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH]
        places = [await desk.come(priority) for priority in order]
        assert [place.position for place in places] == [0, 0, 0, 2, 1]
        for expected in (2, 4, 1, 3, 0):
            await desk.go(running)
            running = places[expected]
            assert running.admitted and desk.admission.active == 1

    run(scenario)


def test_a_slow_load_never_blocks_those_behind_it() -> None:
    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        loading = await desk.come(Priority.HIGH, ready=False)
        behind = await desk.come(Priority.BACKGROUND)
        await desk.go(running)
        assert behind.admitted and not loading.admitted
        await desk.load(loading)
        assert not loading.admitted
        await desk.go(behind)
        assert loading.admitted

    run(scenario)


def test_who_was_loading_keeps_its_place() -> None:
    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        first, second = await desk.come(ready=False), await desk.come()
        await desk.load(first)
        await desk.go(running)
        assert first.admitted and not second.admitted

    run(scenario)


def test_rows_are_a_limit_of_their_own_and_a_large_request_does_not_starve() -> None:
    async def scenario(desk: Desk) -> None:
        one, two = await desk.come(rows=4), await desk.come(rows=4)
        large, small = await desk.come(rows=8), await desk.come(rows=2)
        assert (one.admitted, two.admitted, large.admitted, small.admitted) == (True, True, False, False)
        await desk.go(one)
        assert not small.admitted, "small ones passing by would keep the large one out for ever"
        await desk.go(two)
        assert large.admitted and small.admitted

    run(scenario, requests=8, rows=10)


def test_a_request_with_more_rows_than_may_draw_draws_alone() -> None:
    async def scenario(desk: Desk) -> None:
        huge, small = await desk.come(rows=32), await desk.come(rows=2)
        assert huge.admitted and not small.admitted
        await desk.go(huge)
        assert small.admitted

    run(scenario, requests=8, rows=10)


def test_when_the_queue_is_full_a_higher_one_takes_the_place_of_the_newest_lowest() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.come()
        old, normal, new = (
            await desk.come(Priority.BACKGROUND), await desk.come(), await desk.come(Priority.BACKGROUND),
        )  # fmt: skip
        high = await desk.come(Priority.HIGH)
        with pytest.raises(QueueFull) as refused:
            await new.turn()
        assert refused.value.retry_after_seconds
        assert not old.decided.done() and not normal.decided.done() and not high.decided.done()
        assert desk.count("terroir_inference_refused_requests_total", reason="QUEUE_FULL", priority="BACKGROUND") == 1
        await desk.come(Priority.HIGH)  # takes the place of `old`
        await desk.come(Priority.HIGH)  # takes the place of `normal`
        with pytest.raises(QueueFull):
            await desk.come(Priority.HIGH)

    run(scenario, waiting=3)


def test_equals_do_not_displace_each_other() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.come(Priority.BACKGROUND)
        await desk.come(Priority.BACKGROUND)
        with pytest.raises(QueueFull):
            await desk.come(Priority.BACKGROUND)

    run(scenario, waiting=1)


def test_without_a_queue_only_as_many_as_may_draw_are_let_in_even_while_they_load() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.come(ready=False)
        await desk.come(ready=False)
        with pytest.raises(QueueFull):
            await desk.come()

    run(scenario, requests=2, waiting=0)


def test_a_load_ends_when_its_request_loses_its_place() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.come()
        loading = await desk.come(Priority.BACKGROUND, ready=False)
        ended = asyncio.Event()

        async def load() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        waiting = asyncio.ensure_future(loading.while_waiting(load()))
        await asyncio.sleep(0)
        await desk.come(Priority.HIGH)
        with pytest.raises(QueueFull):
            await waiting
        assert ended.is_set()

    run(scenario, waiting=1)


def test_who_gives_up_while_waiting_leaves_no_hole() -> None:
    """A cancelled wait must neither keep its place nor give it back twice, also if its turn comes at that moment."""

    async def scenario(desk: Desk) -> None:
        running = await desk.come()

        async def wait() -> None:
            async with desk.admission.enter(Demand(Work(64, 64, 2, 10, 1))) as place:
                await place.turn()

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await desk.go(running)  # frees the place before the cancelled task ran
        await asyncio.gather(waiting, return_exceptions=True)
        assert (desk.admission.active, desk.admission.waiting) == (0, 0)

    run(scenario)


def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_a_hint() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.come(seconds=11)  # 10 steps of 1 s
        with pytest.raises(DeadlineUnmeetable, match=r"20\.0 s \(10\.0 s on an idle server\)") as refused:
            await desk.come(seconds=12)
        assert refused.value.retry_after_seconds == pytest.approx(8, abs=0.5)
        assert "try again" in str(refused.value)
        with pytest.raises(DeadlineUnmeetable, match="fewer steps"):
            await desk.come(seconds=5)
        reason = {"reason": "DEADLINE_UNMEETABLE", "priority": "NORMAL"}
        assert desk.count("terroir_inference_refused_requests_total", **reason) == 2
        assert desk.admission.waiting == 0

    run(scenario, tick=1.0)


def test_who_waited_too_long_to_be_in_time_is_refused_at_its_turn_and_the_next_one_draws() -> None:
    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        late, next_one = await desk.come(seconds=21), await desk.come(seconds=60)
        desk.clock.advance(14)  # four more than predicted
        await desk.go(running)
        with pytest.raises(DeadlineUnmeetable):
            late.decided.result()
        assert next_one.admitted and not late.admitted

    run(scenario, tick=1.0)


@pytest.mark.parametrize(("priority", "at_once"), [(Priority.NORMAL, False), (Priority.HIGH, True)])
def test_nobody_enters_who_would_make_an_equal_miss_its_deadline(priority: Priority, at_once: bool) -> None:
    """Beside the second one a tick takes 3 s instead of 1, and the first one has 12 s for its 10 ticks."""

    async def scenario(desk: Desk) -> None:
        first = await desk.come(seconds=12)
        second = await desk.come(priority, rows=4)
        assert first.admitted and second.admitted == at_once
        await desk.go(first)
        assert second.admitted

    run(scenario, requests=8, tick=1.0)


def test_a_prediction_a_little_too_long_refuses_nobody() -> None:
    async def scenario(desk: Desk) -> None:
        assert (await desk.come(seconds=10 / SAFETY + 0.01)).predicted_seconds == pytest.approx(10)

    run(scenario, tick=1.0)


def test_nobody_is_refused_for_a_deadline_while_nothing_is_known() -> None:
    async def scenario(desk: Desk) -> None:
        assert (await desk.come(seconds=0.001)).admitted

    run(scenario)


def test_a_request_that_is_refused_takes_nobodys_place() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.come()
        low = await desk.come(Priority.BACKGROUND)
        with pytest.raises(DeadlineUnmeetable):
            await desk.come(Priority.HIGH, seconds=1)
        assert not low.decided.done()

    run(scenario, waiting=1, tick=1.0)


def test_what_is_done_already_counts() -> None:
    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        running.stepped(9, 10)
        assert (await desk.come()).predicted_seconds == pytest.approx(11)

    run(scenario, tick=1.0)


def test_wrong_costs_do_not_refuse_for_ever() -> None:
    """Whoever is refused is never drawn, so a cost that is far too high could not be seen to be wrong."""

    async def scenario(desk: Desk) -> None:
        for _ in range(1000):
            try:
                await desk.come(seconds=10)
            except DeadlineUnmeetable:
                continue
            return
        raise AssertionError("nobody was let in")

    run(scenario, tick=100.0)


def test_a_deadline_that_passes_in_the_queue_ends_the_wait_at_once() -> None:
    async def scenario() -> None:
        clock = SystemClock()
        metrics = AdmissionMetrics(CollectorRegistry())
        admission = Admission(Capacity(1, 8, 8), 4, CostModel(), clock, metrics)
        async with admission.enter(Demand(Work(64, 64, 2, 10, 1))) as running:
            await running.turn()
            demand = Demand(Work(64, 64, 2, 10, 1), deadline=clock.monotonic() + 0.001)
            with pytest.raises(DeadlineExceeded, match="in the queue"):
                async with admission.enter(demand) as place:
                    await asyncio.wait_for(place.turn(), 30)
            assert admission.waiting == 0
            with pytest.raises(DeadlineExceeded):
                async with admission.enter(Demand(demand.work, deadline=clock.monotonic())):
                    raise AssertionError("it was let in")

    asyncio.run(scenario())


def test_the_hint_of_a_full_queue_is_when_the_first_one_leaves() -> None:
    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        running.stepped(4, 10)
        with pytest.raises(QueueFull) as refused:
            await desk.come()
        assert refused.value.retry_after_seconds == pytest.approx(6)

    run(scenario, waiting=0, tick=1.0)


def test_the_share_of_a_load_that_the_queue_hides_is_known() -> None:
    """It came at 0, a turn was free at 3, its adapters were there at 5: 3 of 5 seconds were hidden."""

    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        loading = await desk.come(ready=False)
        assert loading.due is None
        desk.clock.advance(3)
        await desk.go(running)
        desk.clock.advance(2)
        await desk.load(loading)
        assert loading.admitted and loading.due == loading.arrived + 3

    run(scenario)


def test_a_tick_that_eight_requests_report_is_learnt_once() -> None:
    desk = Desk(tick=1.0)
    for _ in range(8):
        desk.admission.learn(TickCost(64 * 64, 2, 2.0))

    async def predicted() -> float:
        place = await desk.come()
        await desk.go(place)
        return place.predicted_seconds

    assert asyncio.run(predicted()) == pytest.approx(12)


_ACTS = st.one_of(
    st.tuples(st.just("come"), st.sampled_from(Priority), st.integers(1, 12), st.booleans()),
    st.tuples(st.just("load"), st.integers(0, 30)),
    st.tuples(st.just("go"), st.integers(0, 30)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_ACTS, max_size=40), st.integers(1, 4), st.integers(1, 16), st.integers(0, 4))
def test_whoever_comes_loads_and_goes_the_limits_hold_and_nobody_waits_for_nothing(
    acts: list[Any], requests: int, rows: int, waiting: int
) -> None:
    async def play() -> None:
        desk = Desk(requests=requests, rows=rows, waiting=waiting)
        here: list[Place] = []
        for act in acts:
            if act[0] == "come":
                with suppress(TerroirError):
                    here.append(await desk.come(act[1], rows=act[2], ready=act[3]))
            elif here and act[0] == "load":
                place = here[act[1] % len(here)]
                if not place.is_ready and not place.decided.done():
                    await desk.load(place)
            elif here:
                await desk.go(here.pop(act[1] % len(here)))
            admission = desk.admission
            drawing = [place for place in here if place.admitted]
            assert admission.active == len(drawing) <= requests
            assert admission.active_rows <= max(rows, max((place.work.rows for place in drawing), default=0))
            assert admission.active + admission.waiting <= requests + waiting
            ready = [p for p in here if p.is_ready and not p.decided.done()]
            if ready and len(drawing) < requests:
                first = min(ready, key=lambda p: p.demand.priority)
                assert drawing and admission.active_rows + first.work.rows > rows, "somebody waits for nothing"
        await desk.close()

    asyncio.run(play())
