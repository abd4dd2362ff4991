"""What was said to be no longer right: heard everywhere, by content, by style, by both."""

from __future__ import annotations

import pytest

from terroir.inference.covers.errors import RegionWithoutStyle
from terroir.inference.covers.ladder import RungKind
from terroir.store.errors import OperationConflict
from tests.unit.inference.covers.cover_kit import House, run


async def drawn(*keys: str) -> House:
    """A server with covers of contents in two regions."""
    house = House()
    house.publish(1)
    house.publish(1, "hotpot")
    house.region("CN", "ink")
    house.region("SC", "hotpot")
    for key in keys:
        house.content(key)
    for region in ("CN", "SC"):
        await house.ask(*keys, region=region)
    await house.draw_missed()
    house.clock.advance(1)
    return house


async def say(house: House, *keys: str, region: str = "", withdraw: bool = False, request_id: str = "") -> None:
    await house.covers.invalidate(
        keys, region and f"regions/{region}", withdraw=withdraw, reason="r", actor="ana", request_id=request_id
    )


@pytest.mark.parametrize(
    ("keys", "region", "stale"),
    [
        (["a"], "", {("a", "CN"), ("a", "SC")}),
        ([], "CN", {("a", "CN"), ("b", "CN")}),
        (["a"], "CN", {("a", "CN")}),
        (["a", "b"], "SC", {("a", "SC"), ("b", "SC")}),
    ],
)
def test_exactly_what_was_named_is_stale_and_is_drawn_anew(keys: list[str], region: str, stale: set[object]) -> None:
    async def scenario() -> None:
        house = await drawn("a", "b")
        await say(house, *keys, region=region)
        house.clock.advance(2)
        for code in ("CN", "SC"):
            for found in await house.ask("a", "b", region=code):
                is_stale = (found.content, code) in stale
                assert found.kind is RungKind.REGION
                assert (found.stale_since is not None, found.filling) == (is_stale, is_stale)
        assert await house.draw_missed() == len(stale)
        assert {found.stale_since for code in ("CN", "SC") for found in await house.ask("a", "b", region=code)} == {
            None
        }

    run(scenario())


def test_what_is_withdrawn_is_shown_no_more() -> None:
    async def scenario() -> None:
        house = await drawn("a")
        await say(house, "a", withdraw=True)
        assert (await house.one("a")).kind is RungKind.DEFAULT
        assert await house.draw_missed() == 1
        assert (await house.one("a")).kind is RungKind.REGION

    run(scenario())


def test_what_was_said_to_be_wrong_is_drawn_with_other_seeds_and_more_variants_with_the_same() -> None:
    async def scenario() -> None:
        house = await drawn("a")
        wrong = await house.one("a")
        await say(house, "a", region="CN")
        await house.ask("a")
        await house.draw_missed()
        mended = await house.one("a")
        assert wrong.picture and mended.picture and wrong.picture.seed != mended.picture.seed
        house.clock.advance(1)
        before = len(house.engine.drawn)
        await house.ask("a", count=8)
        await house.draw_missed()
        seeds = {wish.seeds[0] for wish in house.engine.drawn[before:]}
        assert mended.picture.seed in seeds and wrong.picture.seed not in seeds

    run(scenario())


def test_every_server_hears_of_it_and_a_new_one_too() -> None:
    async def scenario() -> None:
        house = await drawn("a")
        other = house.beside()
        assert (await other.one("a")).stale_since is None
        await say(house, "a")
        await other.invalidations.hear()
        assert (await other.one("a")).stale_since is not None
        late = house.beside()
        await late.invalidations.hear()
        assert (await late.one("a")).stale_since is not None

    run(scenario())


def test_a_server_sees_what_another_one_drew_in_its_place() -> None:
    async def scenario() -> None:
        house = await drawn("a")
        other = house.beside()
        await other.one("a")
        await say(house, "a")
        await other.invalidations.hear()
        await house.ask("a")
        await house.draw_missed()
        house.clock.advance(2)
        assert (await other.one("a")).stale_since is None

    run(scenario())


def test_a_withdrawal_outlives_a_milder_word_and_repeats_are_one() -> None:
    async def scenario() -> None:
        house = await drawn("a")
        await say(house, "a", withdraw=True, request_id="one")
        house.clock.advance(1)
        await say(house, "a", request_id="two")
        assert (await house.one("a")).kind is RungKind.DEFAULT
        await say(house, "a", withdraw=True, request_id="one")
        with pytest.raises(OperationConflict):
            await say(house, "b", request_id="one")

    run(scenario())


def test_a_region_without_a_style_is_refused_rather_than_the_base_of_all() -> None:
    async def scenario() -> None:
        house = await drawn("a")
        with pytest.raises(RegionWithoutStyle):
            await say(house, region="XX")

    run(scenario())


def test_a_damaged_rule_is_skipped_and_later_ones_hold() -> None:
    async def scenario() -> None:
        house = await drawn("a")
        await say(house, "b")
        await say(house, "a")
        key = next(key for key in house.store.list("covers/invalidations") if key.endswith(".json"))
        house.store.put(key, b"garbage")
        late = house.beside()
        for _ in range(3):
            await late.invalidations.hear()
        assert (await late.one("a")).stale_since is not None

    run(scenario())
