"""Events for a slow reader."""

from __future__ import annotations

import asyncio

import pytest

from terroir.inference.engine.messages import Drawn, Finished, JobEvent, Previewed, Raster, Stepped, TickCost
from terroir.inference.errors import EngineRestarted
from terroir.inference.mailbox import Mailbox

DOT = Raster(1, 1, b"\0\0\0")

TICK = TickCost(pixels=64, rows=2, seconds=0.1)


def test_a_late_reader_gets_every_step_but_only_the_newest_preview_of_each_picture() -> None:
    async def scenario() -> list[JobEvent]:
        mailbox = Mailbox()
        for step in (1, 2, 3):
            mailbox.post(Stepped("job", step, 3, TICK, "base"))
            for index in (0, 1):
                mailbox.post(Previewed("job", index, step, DOT))
        mailbox.post(Drawn("job", 0, DOT))
        mailbox.post(Finished("job", 1.0, (), 0))
        return [event async for event in mailbox.read()]

    events = asyncio.run(scenario())
    assert [event.step for event in events if isinstance(event, Stepped)] == [1, 2, 3]
    assert [(e.index, e.step) for e in events if isinstance(e, Previewed)] == [(1, 3)], "picture 0 is finished"
    assert isinstance(events[-1], Finished)


def test_an_error_ends_the_stream_after_what_came_before_it() -> None:
    async def scenario() -> None:
        mailbox = Mailbox()
        mailbox.post(Stepped("job", 1, 3, TICK, "base"))
        mailbox.post(EngineRestarted("gone"))
        events = mailbox.read()
        assert isinstance(await anext(events), Stepped)
        with pytest.raises(EngineRestarted):
            await anext(events)

    asyncio.run(scenario())
