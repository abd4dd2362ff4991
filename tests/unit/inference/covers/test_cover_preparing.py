"""Preparations: every set drawn once, on whatever server, through kills, cancels, deadlines and budgets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from terroir.common.errors import FailedPrecondition, Unavailable
from terroir.inference.covers.contents import Content
from terroir.inference.covers.errors import PreparationNotFound
from terroir.inference.covers.filling import candidates
from terroir.inference.covers.ladder import RungKind
from terroir.inference.covers.preparation import Preparation, SetFailure, State, Tally
from terroir.store.errors import OperationConflict
from tests.unit.inference.covers.cover_kit import House, prepared, run
from tests.unit.inference.tier_kit import settled


def furnished(**options: object) -> House:
    """Two regions with styles of their own."""
    house = House(**options)  # type: ignore[arg-type]
    house.publish(1)
    house.publish(1, "hotpot")
    house.region("CN", "ink")
    house.region("SC", "hotpot")
    return house


@asynccontextmanager
async def working(*houses: House) -> AsyncIterator[None]:
    """Their loops, until the end."""
    tasks = [asyncio.create_task(house.preparer.run()) for house in houses]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def begin(house: House, *keys: str, **fields: object) -> Preparation:
    contents = [Content(key, f"a picture of {key}") for key in keys]
    return await house.covers.prepare(prepared(house, *keys, **fields), contents)  # type: ignore[arg-type]


def state(house: House, preparation: Preparation) -> State:
    return house.preparations.get(preparation.id).state


def test_every_set_is_drawn_once_and_found() -> None:
    async def scenario() -> None:
        house = furnished()
        keys = [f"post-{number}" for number in range(12)]
        async with working(house):
            preparation = await begin(house, *keys, regions=("CN", "SC", ""), variants=2)
            await settled(lambda: state(house, preparation) is State.SUCCEEDED)
            tally = await house.preparer.tally(house.preparations.get(preparation.id))
        assert tally == Tally(drawn=36, pictures=36 * candidates(2))
        drawn = Counter((wish.prompt, wish.adapters, wish.seeds) for wish in house.engine.drawn)
        assert set(drawn.values()) == {1}
        found = await house.ask(*keys, region="SC", count=2)
        assert len(found) == 24 and {each.kind for each in found} == {RungKind.REGION}

    run(scenario())


def test_two_servers_share_the_work_and_double_nothing() -> None:
    async def scenario() -> None:
        house = furnished()
        other = house.beside()
        keys = [f"post-{number}" for number in range(40)]
        async with working(house, other):
            preparation = await begin(house, *keys)
            await settled(lambda: state(other, preparation) is State.SUCCEEDED)
            ended = house.preparations.get(preparation.id)
            assert (await other.preparer.tally(ended)).drawn + (await other.preparer.tally(ended)).kept == 40
        drawn = Counter((wish.prompt, wish.seeds) for wish in house.engine.drawn)
        assert len(drawn) == 40 * candidates(1) and set(drawn.values()) == {1}

    run(scenario())


def test_a_server_that_died_leaves_what_it_drew_and_another_goes_on() -> None:
    async def scenario() -> None:
        house = furnished()
        keys = [f"post-{number}" for number in range(20)]
        preparation = await begin(house, *keys)
        async with working(house):
            await settled(lambda: len(house.engine.drawn) >= 7)
        drawn = len(house.engine.drawn)
        assert state(house, preparation) is State.RUNNING and drawn < 40
        house.clock.advance(60)  # claims whose holder is silent are over
        successor = house.beside()
        async with working(successor):
            await settled(lambda: state(successor, preparation) is State.SUCCEEDED)
        kept = Counter((wish.prompt, wish.seeds) for wish in house.engine.drawn)
        assert len(kept) == 20 * candidates(1)
        # Pictures of sets that were under way are drawn again; those of finished ones are not.
        assert sum(kept.values()) - len(kept) <= 2 * candidates(1)

    run(scenario())


def test_an_engine_that_ends_in_between_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("terroir.inference.covers.preparing._PAUSE_SECONDS", 0.01)
        house = furnished()
        house.engine.failures = [Unavailable("it ended", reason="ENGINE_RESTARTED")] * 5
        async with working(house):
            preparation = await begin(house, *(f"post-{number}" for number in range(4)))
            await settled(lambda: state(house, preparation) is State.SUCCEEDED)
            tally = await house.preparer.tally(house.preparations.get(preparation.id))
        assert (tally.drawn, tally.failed) == (4, 0)

    run(scenario())


def test_what_can_not_be_drawn_is_told_and_the_rest_is_drawn() -> None:
    async def scenario() -> None:
        house = furnished()
        house.engine.failures = [FailedPrecondition("no", reason="PROMPT_REFUSED")]
        async with working(house):
            preparation = await begin(house, "a", "b", regions=("CN", "XX"))
            await settled(lambda: state(house, preparation) is State.SUCCEEDED)
            tally = await house.preparer.tally(house.preparations.get(preparation.id))
        assert (tally.drawn, tally.failed) == (1, 3)
        assert Counter(failure.reason for failure in tally.failures) == {
            "REGION_WITHOUT_STYLE": 2, "PROMPT_REFUSED": 1,
        }  # fmt: skip

    run(scenario())


def test_a_cancelled_one_draws_no_more_and_keeps_what_it_drew() -> None:
    async def scenario() -> None:
        house = furnished(at_once=1)
        keys = [f"post-{number}" for number in range(60)]
        async with working(house):
            preparation = await begin(house, *keys)
            await settled(lambda: len(house.engine.drawn) >= 4)
            cancelled = await house.covers.cancel(preparation.id)
            assert cancelled.state is State.CANCELLED and cancelled.ended_at is not None
            await settled(lambda: not house.preparer._running)
            drawn = len(house.engine.drawn)
            assert (await house.covers.cancel(preparation.id)) == cancelled
        assert drawn < 120
        assert (await house.one("post-0")).kind is RungKind.REGION

    run(scenario())


def test_a_deadline_and_a_budget_cut_it_short() -> None:
    async def scenario() -> None:
        house = furnished()
        async with working(house):
            budget = await begin(house, *(f"post-{number}" for number in range(10)), max_pictures=7)
            await settled(lambda: state(house, budget) is State.CUT_SHORT)
            assert len(house.engine.drawn) == 6  # two a set: one more set would be eight
            assert "7 pictures" in house.preparations.get(budget.id).cut_short
            house.engine.gate.clear()
            late = await begin(house, "late", id="p2", deadline=house.clock.now().timestamp() + 5, regions=("SC",))
            await settled(lambda: "p2" in house.preparer._running)
            house.clock.advance(6)
            house.preparer.added()
            await settled(lambda: state(house, late) is State.CUT_SHORT)
            house.engine.gate.set()

    run(scenario())


def test_what_is_there_is_kept_unless_it_shall_be_redrawn() -> None:
    async def scenario() -> None:
        house = furnished()
        async with working(house):
            for number, redraw in enumerate((False, False, True)):
                house.clock.advance(1)
                preparation = await begin(house, "post", id=f"p{number}", redraw=redraw)
                await settled(lambda preparation=preparation: state(house, preparation) is State.SUCCEEDED)
                tally = await house.preparer.tally(house.preparations.get(preparation.id))
                assert (tally.drawn, tally.kept) == ((0, 1) if number == 1 else (1, 0))

    run(scenario())


def test_other_words_for_a_content_make_its_covers_stale_everywhere() -> None:
    async def scenario() -> None:
        house = furnished()
        async with working(house):
            first = await begin(house, "post", regions=("CN", "SC"))
            await settled(lambda: state(house, first) is State.SUCCEEDED)
            house.clock.advance(1)
            reworded = [Content("post", "something else")]
            second = await house.covers.prepare(prepared(house, "post", id="p2"), reworded)
            await settled(lambda: state(house, second) is State.SUCCEEDED)
        fresh, stale = await house.one("post", "CN", with_data=True), await house.one("post", "SC")
        assert b"something else" in fresh.data and fresh.stale_since is None
        assert stale.stale_since is not None and stale.filling

    run(scenario())


def test_a_repeated_request_begins_nothing_new_and_another_under_its_name_is_refused() -> None:
    async def scenario() -> None:
        house = furnished()
        first = await begin(house, "post")
        house.clock.advance(1)
        assert await begin(house, "post") == first
        with pytest.raises(OperationConflict):
            await begin(house, "post", variants=3)
        with pytest.raises(PreparationNotFound):
            house.preparations.get("p99")

    run(scenario())


def test_a_preparation_that_was_announced_and_never_written_holds_up_no_other() -> None:
    async def scenario() -> None:
        house = furnished()
        house.preparations._log.append({"id": "lost"}, op_id="lost")
        async with working(house):
            preparation = await begin(house, "post")
            await settled(lambda: state(house, preparation) is State.SUCCEEDED)
        assert [found.id for _, found in house.preparations.newest(None)] == ["p1"]

    run(scenario())


def test_urgent_ones_go_before_what_callers_miss_and_that_before_all_others() -> None:
    async def scenario() -> None:
        from terroir.inference.admission.priority import Priority

        house = furnished(at_once=1)
        house.engine.gate.clear()
        async with working(house):
            loop = asyncio.create_task(house.covers.fill_loop.run())
            await begin(house, "blocks", id="p0")
            await settled(lambda: house.preparer._running.get("p0") is not None)
            for name, priority in (
                ("slow", Priority.BACKGROUND),
                ("usual", Priority.NORMAL),
                ("urgent", Priority.HIGH),
            ):
                await begin(house, name, id=name, priority=priority)
                await settled(lambda name=name: house.preparer._running.get(name) is not None)
            house.content("missed")
            await house.ask("missed")
            await settled(lambda: len(house.preparer._slots._waiting) == 4)
            house.engine.gate.set()
            await settled(lambda: len({wish.prompt for wish in house.engine.drawn}) == 5)
            loop.cancel()
        order = list(dict.fromkeys(wish.prompt.rpartition(" ")[2] for wish in house.engine.drawn))
        assert order == ["blocks", "urgent", "missed", "usual", "slow"]

    run(scenario())


def test_a_million_covers_are_a_few_thousand_chunks() -> None:
    house = House()
    keys = ["k"] * 10_000
    large = prepared(house, *keys, regions=tuple(f"R-{number}" for number in range(100)))
    assert large.total == 1_000_000 and large.chunks <= 4096
    last = list(large.of_chunk(large.chunks - 1))
    assert last[-1] == (9999, "regions/R-99")
    counted = sum(len(list(large.of_chunk(number))) for number in (0, large.chunks - 1))
    assert counted == large.chunk_size + large.total - large.chunk_size * (large.chunks - 1)


def test_tallies_add_up_and_tell_of_the_first_failures() -> None:
    failed = [Tally(failed=1, failures=(SetFailure(f"k{number}", "", "R", "m"),)) for number in range(30)]
    total = sum(failed, Tally(drawn=2, pictures=5))
    assert (total.drawn, total.failed, total.pictures, len(total.failures)) == (2, 30, 5, 20)
    assert Tally.from_body(total.to_body()) == total
