"""The bounded queue."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from terroir.inference.admission import Admission, Ticket
from terroir.inference.errors import QueueFull


async def enter(admission: Admission, stack: AsyncExitStack) -> Ticket:
    """A ticket that is given back when the stack closes."""
    return await stack.enter_async_context(admission.enter())


def test_requests_beyond_the_active_ones_wait_in_order_and_the_next_is_refused() -> None:
    async def scenario() -> None:
        admission = Admission(max_active=1, max_waiting=2)
        async with AsyncExitStack() as one, AsyncExitStack() as two, AsyncExitStack() as three:
            tickets = [await enter(admission, stack) for stack in (one, two, three)]
            assert [ticket.position for ticket in tickets] == [0, 0, 1]
            assert [ticket.admitted for ticket in tickets] == [True, False, False]
            with pytest.raises(QueueFull) as refused:
                await enter(admission, AsyncExitStack())
            assert refused.value.retry_after_seconds
            await one.aclose()
            assert [ticket.admitted for ticket in tickets] == [True, True, False]
        assert (admission.active, admission.waiting) == (0, 0)

    asyncio.run(scenario())


def test_who_gives_up_while_waiting_leaves_no_hole() -> None:
    """A cancelled wait cancels the future too; its place must be neither kept nor given back twice."""

    async def scenario() -> None:
        admission = Admission(max_active=1, max_waiting=2)

        async def wait() -> None:
            async with admission.enter() as ticket:
                await ticket.turn

        async with AsyncExitStack() as one:
            await enter(admission, one)
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiting.cancel()
            await one.aclose()  # frees the place before the cancelled task ran
            await asyncio.gather(waiting, return_exceptions=True)
        assert (admission.active, admission.waiting) == (0, 0)

    asyncio.run(scenario())


def test_the_hint_follows_how_long_requests_take() -> None:
    async def hint(seconds: float) -> float:
        admission = Admission(max_active=1, max_waiting=0)
        for _ in range(50):
            admission.drawn(seconds)
        async with admission.enter():
            with pytest.raises(QueueFull) as refused:
                await enter(admission, AsyncExitStack())
            assert refused.value.retry_after_seconds is not None
            return refused.value.retry_after_seconds

    assert asyncio.run(hint(30.0)) == pytest.approx(30, rel=0.01)
    assert asyncio.run(hint(0.01)) == pytest.approx(0.5)
