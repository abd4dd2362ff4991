"""What GetCovers answers: down the ladder, at once, and what it has drawn for the next caller."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from terroir.common.errors import Unavailable
from terroir.inference.adapters.sources import CanaryInfo, ChangeKind, VersionInfo
from terroir.inference.covers.finding import Query
from terroir.inference.covers.ladder import Lack, RungKind
from terroir.inference.covers.shelf import picture_key
from terroir.store.errors import StoreUnavailable
from terroir.store.obstore_driver import MemoryStore
from tests.unit.inference.covers.cover_kit import SHAPE, House, run
from tests.unit.inference.tier_kit import FakeRegistry, version_name


class Outage(MemoryStore):
    """A store that can go away, or stand still."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = False
        self.slow: threading.Event | None = None
        self.reads: list[str] = []

    def get(self, key: str) -> bytes:
        self.reads.append(key)
        if self.slow is not None:
            self.slow.wait(20)
        if self.gone:
            raise StoreUnavailable("gone", key)
        return super().get(key)


def styled(house: House) -> None:
    """China has a style, Zhejiang within it another one."""
    house.publish(1)
    house.publish(1, "hotpot")
    house.region("CN", "hotpot")
    house.region("CN-ZJ", "ink", within=["CN"])


def test_a_region_gets_its_own_cover_and_the_answer_says_so() -> None:
    async def scenario() -> None:
        house = House()
        styled(house)
        house.content("post")
        await house.ask("post", region="CN-ZJ")
        assert await house.draw_missed() == 1
        found = await house.one("post", "CN-ZJ", with_data=True)
        assert (found.kind, found.source, found.lack, found.filling) == (RungKind.REGION, "regions/CN-ZJ", "", False)
        assert found.data.startswith(b"a picture of post||adapters/ink/versions/1*1|")
        assert found.picture is not None and found.stale_since is None

    run(scenario())


def test_what_is_missing_falls_to_the_parent_then_to_the_base_then_to_the_callers_own() -> None:
    async def scenario() -> None:
        house = House()
        styled(house)
        house.content("post")
        kinds = []
        for region in ("", "CN"):
            found = await house.one("post", "CN-ZJ")
            assert found.lack is Lack.NOT_DRAWN and found.filling
            kinds.append((found.kind, found.source))
            house.fills.take()  # forgotten: only what is asked for in `region` is drawn here
            await house.ask("post", region=region)
            await house.draw_missed()
            house.clock.advance(3)  # what was missing is looked for again
        kinds.append(((found := await house.one("post", "CN-ZJ")).kind, found.source))
        assert kinds == [(RungKind.DEFAULT, ""), (RungKind.BASE, ""), (RungKind.PARENT, "regions/CN")]

    run(scenario())


def test_it_never_waits_for_what_is_drawn() -> None:
    async def scenario() -> None:
        house = House()
        styled(house)
        house.content("post")
        house.engine.gate.clear()
        found = await house.one("post")
        assert (found.kind, found.filling) == (RungKind.DEFAULT, True)

    run(scenario())


def test_two_regions_with_one_look_share_their_covers() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.region("JP", "ink")
        house.content("post")
        await house.ask("post", region="CN")
        await house.draw_missed()
        assert (await house.one("post", "JP")).kind is RungKind.REGION
        assert len(house.engine.drawn) == 2  # candidates of one set

    run(scenario())


def test_an_old_cover_serves_until_the_new_one_is_drawn_and_says_how_old_it_is() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        before = await house.one("post")
        house.publish(2)
        await house.changed(ChangeKind.PUBLISHED, version_name(2, "ink"))
        house.clock.advance(5)
        stale = await house.one("post")
        assert stale.picture == before.picture and stale.kind is RungKind.REGION
        assert stale.stale_since == house.clock.now().timestamp() - 5 and stale.filling
        await house.draw_missed()
        fresh = await house.one("post", with_data=True)
        assert fresh.stale_since is None and b"versions/2" in fresh.data

    run(scenario())


def test_many_moves_leave_the_first_covers_and_nothing_that_waits_in_a_look_between() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.region("SG", "wash")
        house.publish(1, "wash")
        for key in ("post", "other"):
            house.content(key)
        house.clock.advance(3600)
        await house.one("post")
        await house.draw_missed()
        first = await house.one("post")
        await house.one("other", "SG")
        for number in range(2, 9):
            house.publish(number)
            await house.changed(ChangeKind.PUBLISHED, version_name(number, "ink"))
            house.clock.advance(60)
            found = await house.one("post")
            assert found.picture == first.picture and found.stale_since is not None and found.filling
            assert house.counted("cover_fills_waiting") == 2  # the newest look's, and the other region's
        await house.draw_missed()
        newest = await house.one("post", with_data=True)
        assert newest.stale_since is None and b"versions/8" in newest.data

    run(scenario())


def test_a_restart_remembers_what_a_region_wore_before() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        house.publish(2)
        restarted = house.beside()
        found = await restarted.one("post")
        assert found.kind is RungKind.REGION and found.stale_since is not None

    run(scenario())


def test_a_version_withdrawn_for_cause_is_shown_no_more_at_once() -> None:
    async def scenario() -> None:
        house = House()
        styled(house)
        house.content("post")
        for region in ("CN", "CN-ZJ"):
            await house.ask("post", region=region)
        await house.draw_missed()
        name = version_name(1, "ink")
        house.registry.versions[name] = replace(house.registry.versions[name], withdrawn="rights")
        house.ladders.withdrawn(house.registry.versions[name].file_digest)
        at_once = await house.one("post", "CN-ZJ")
        assert (at_once.kind, at_once.source) == (RungKind.PARENT, "regions/CN")
        await house.changed(ChangeKind.DEPRECATED, name)
        assert (await house.one("post", "CN-ZJ")).source == "regions/CN"
        house.publish(2)  # the next version is worn, and the withdrawn one is no older cover of it
        await house.changed(ChangeKind.PUBLISHED, version_name(2, "ink"))
        assert (await house.one("post", "CN-ZJ")).source == "regions/CN"

    run(scenario())


def test_a_style_whose_version_was_withdrawn_comes_back_with_another_one_and_its_old_covers() -> None:
    async def scenario() -> None:
        house = House()
        styled(house)
        house.content("post")
        for number in (1, 2):
            house.publish(number)
            await house.changed(ChangeKind.PUBLISHED, version_name(number, "ink"))
            await house.ask("post", region="CN-ZJ")
            await house.draw_missed()
        name = version_name(2, "ink")
        house.registry.versions[name] = replace(house.registry.versions[name], withdrawn="rights")
        house.ladders.withdrawn(house.registry.versions[name].file_digest)
        await house.changed(ChangeKind.DEPRECATED, name)
        assert (await house.one("post", "CN-ZJ")).kind is RungKind.DEFAULT
        house.publish(3)
        await house.changed(ChangeKind.ALIASES, "adapters/ink")
        old = await house.one("post", "CN-ZJ", with_data=True)
        assert old.kind is RungKind.REGION and old.stale_since is not None and b"versions/1" in old.data
        await house.draw_missed()
        assert b"versions/3" in (await house.one("post", "CN-ZJ", with_data=True)).data

    run(scenario())


def test_a_restart_hears_of_what_was_withdrawn_while_it_was_away() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        name = version_name(1, "ink")
        house.registry.versions[name] = replace(house.registry.versions[name], withdrawn="rights")
        house.publish(2)
        assert (await house.beside().one("post")).kind is RungKind.DEFAULT

    run(scenario())


def test_a_share_of_the_callers_sees_the_canary_and_each_stays_on_its_side() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.publish(2)
        house.registry.aliases["adapters/ink@production"] = version_name(1, "ink")
        house.canaries.known["adapters/ink@production"] = CanaryInfo(version_name(2, "ink"), 30.0, None)
        house.region("CN", "ink@production")
        house.content("post")
        users = [f"user-{number}" for number in range(200)]
        for user in users:
            await house.ask("post", sticky_key=user)
        await house.draw_missed()
        house.clock.advance(3)
        worn = {user: (await house.one("post", sticky_key=user, with_data=True)).data for user in users}
        tried = sum(b"versions/2" in data for data in worn.values())
        assert 40 <= tried <= 80
        assert all(b"versions/1" in data or b"versions/2" in data for data in worn.values())
        assert b"versions/1" in (await house.one("post", with_data=True)).data
        again = {user: (await house.one("post", sticky_key=user, with_data=True)).data for user in users}
        assert again == worn

    run(scenario())


def test_a_canary_that_has_ended_is_tried_on_nobody() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.publish(2)
        house.registry.aliases["adapters/ink@production"] = version_name(1, "ink")
        ends = house.clock.now().timestamp() + 10
        house.canaries.known["adapters/ink@production"] = CanaryInfo(version_name(2, "ink"), 100.0, ends)
        house.region("CN", "ink@production")
        house.content("post")
        looks = []
        for _ in range(2):
            await house.ask("post", sticky_key="ana")
            looks.append([unit.look for unit in house.fills._waiting])
            house.fills.take()
            house.fills._drawing.clear()
            house.clock.advance(11)
        assert looks[0] != looks[1]

    run(scenario())


def test_contents_keep_their_order_and_each_of_their_variants() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        for key in ("a", "b"):
            house.content(key)
        await house.ask("a", "b", count=3)
        await house.draw_missed()
        found = await house.ask("b", "missing", "a", count=3)
        assert [(each.content, each.variant) for each in found] == [
            ("b", 0), ("b", 1), ("b", 2), ("missing", 0), ("a", 0), ("a", 1), ("a", 2),
        ]  # fmt: skip
        assert len({each.picture.digest for each in found if each.picture}) == 6

    run(scenario())


def test_more_variants_than_were_drawn_are_drawn_for_the_next_caller() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        some = await house.ask("post", count=4)
        assert len(some) == 1 and some[0].filling
        await house.draw_missed()
        assert len(await house.ask("post", count=4)) == 4

    run(scenario())


def test_an_unknown_region_has_the_base_and_nothing_is_drawn_for_it() -> None:
    async def scenario() -> None:
        house = House()
        house.content("post")
        await house.ask("post", region="")
        await house.draw_missed()
        found = await house.one("post", "XX")
        assert (found.kind, found.lack, found.filling) == (RungKind.BASE, Lack.REGION_UNKNOWN, False)

    run(scenario())


def test_a_region_whose_parent_nobody_put_has_its_own_style() -> None:
    """CN-ZJ lies in CN by its spelling alone: the first style of a new registry once counted as unknown for that."""

    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN-ZJ", "ink", within=["CN"])
        house.content("post")
        assert (await house.one("post", "CN-ZJ")).filling
        await house.draw_missed()
        found = await house.one("post", "CN-ZJ")
        assert (found.kind, found.source, found.lack) == (RungKind.REGION, "regions/CN-ZJ", Lack.NONE)

    run(scenario())


def test_an_unknown_content_is_the_callers_default_and_is_tried_once_a_minute() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        assert (await house.one("nobody")).filling
        assert await house.draw_missed() == 0
        found = await house.one("nobody")
        assert (found.kind, found.filling) == (RungKind.DEFAULT, False)
        house.clock.advance(61)
        assert (await house.one("nobody")).filling

    run(scenario())


def test_a_store_that_is_gone_leaves_what_is_in_memory_and_the_default() -> None:
    async def scenario() -> None:
        store = Outage()
        house = House(store=store)
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        house.content("other")
        await house.ask("post")
        await house.draw_missed()
        await house.one("post", with_data=True)
        store.gone = True
        known, unknown = await house.ask("post", "other", with_data=True)
        assert known.kind is RungKind.REGION and known.data
        assert (unknown.kind, unknown.lack, unknown.filling) == (RungKind.DEFAULT, Lack.STORE_UNREACHABLE, False)
        assert house.counted("covers_store_misses_total") == 1
        store.gone = False
        assert (await house.one("other")).lack is Lack.NOT_DRAWN

    run(scenario())


def test_a_slow_store_holds_nobody_up() -> None:
    async def scenario() -> None:
        store = Outage()
        house = House(store=store, patience_seconds=0.01)
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        while (await house.ladders.of("regions/CN")).lack:
            await asyncio.sleep(0.01)
        store.slow = threading.Event()
        try:
            async with asyncio.timeout(5):
                assert (await house.one("post")).lack is Lack.STORE_UNREACHABLE
        finally:
            store.slow.set()

    run(scenario())


def test_a_registry_that_is_gone_leaves_what_regions_wore() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        house.registry.go()
        await house.changed(ChangeKind.REGION, "regions/CN")
        assert (await house.one("post")).kind is RungKind.REGION
        restarted = house.beside()
        assert (await restarted.one("post")).kind is RungKind.REGION
        unknown = await restarted.one("post", "JP")
        assert unknown.lack is Lack.REGISTRY_UNREACHABLE and not unknown.filling

    run(scenario())


def test_a_registry_that_hangs_holds_up_no_new_server_that_finds_what_regions_wore() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        hanging = FakeRegistry()
        restarted = House(
            store=house.store, registry=hanging, engine=house.engine, clock=house.clock, patience_seconds=0.3
        )
        answer = asyncio.Event()

        async def version(_name: str) -> VersionInfo:
            await answer.wait()
            raise Unavailable("it hung", reason="SERVICE_UNREACHABLE")

        hanging.version = version  # type: ignore[method-assign]
        assert (await restarted.one("post")).kind is RungKind.REGION
        answer.set()
        await asyncio.gather(*restarted.ladders._building.values())

    run(scenario())


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_picture_lost_under_us_lets_the_next_rung_answer_and_the_hole_refills(damage: str) -> None:
    async def scenario() -> None:
        house = House()
        styled(house)
        house.content("post")
        for region in ("CN", "CN-ZJ"):
            await house.ask("post", region=region)
        await house.draw_missed()
        found = await house.one("post", "CN-ZJ")
        assert found.picture is not None
        house.store.delete(picture_key(found.picture.digest))
        if damage == "changed":
            house.store.create(picture_key(found.picture.digest), b"something else")
        next_best = await house.one("post", "CN-ZJ", with_data=True)
        assert (next_best.kind, next_best.filling) == (RungKind.PARENT, True) and next_best.data
        await house.draw_missed()
        assert (await house.one("post", "CN-ZJ", with_data=True)).data.startswith(b"a picture of post||adapters/ink")
        assert house.counted("covers_holes_total") == 1

    run(scenario())


def test_a_reader_who_finds_a_hole_has_it_refilled() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        found = await house.one("post")
        assert found.picture is not None
        house.store.delete(picture_key(found.picture.digest))
        assert await house.finder.read(found.picture.digest) is None
        assert await house.draw_missed() == 1
        assert (await house.one("post", with_data=True)).data

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"{}", b'{"text_digest": "a", "made_at": 1, "variants": [], "asked": 1, "take": 0}', b"\xff"],
)
def test_a_damaged_set_counts_as_none(body: bytes) -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        unit = next(iter(house.fills._waiting))
        house.store.put(unit.key, body)
        house.clock.advance(3)
        assert (await house.one("post")).kind is RungKind.DEFAULT
        await house.draw_missed()
        assert (await house.one("post")).kind is RungKind.REGION

    run(scenario())


def test_covers_of_another_server_are_found_within_seconds() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        other = house.beside()
        assert (await other.one("post")).kind is RungKind.DEFAULT
        await house.ask("post")
        await house.draw_missed()
        house.clock.advance(2.5)
        assert (await other.one("post")).kind is RungKind.REGION

    run(scenario())


def test_what_is_in_memory_asks_the_store_for_nothing() -> None:
    async def scenario() -> None:
        store = Outage()
        house = House(store=store)
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        await house.ask("post")
        await house.draw_missed()
        await house.one("post", with_data=True)
        store.reads.clear()
        for _ in range(10):
            await house.one("post", with_data=True)
        assert store.reads == []

    run(scenario())


def test_a_memory_too_small_for_one_call_still_answers_it() -> None:
    async def scenario() -> None:
        house = House(memory_bytes=1 << 13)
        house.publish(1)
        house.region("CN", "ink")
        keys = [f"post-{number}" for number in range(30)]
        found = await house.finder.find([Query(keys, "regions/CN", 1)], SHAPE)
        assert [each.kind for each in found] == [RungKind.DEFAULT] * 30

    run(scenario())


def test_nothing_is_known_while_the_model_loads() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        house.engine.loading = True
        assert (await house.one("post")).lack is Lack.MODEL_LOADING
        house.engine.loading = False
        assert (await house.one("post")).filling

    run(scenario())


def test_what_can_not_be_drawn_now_is_tried_again_and_what_never_can_is_not() -> None:
    async def scenario() -> None:
        house = House()
        house.publish(1)
        house.region("CN", "ink")
        house.content("post")
        house.engine.failures = [Unavailable("it ended", reason="ENGINE_RESTARTED")] * 2
        await house.ask("post")
        assert await house.draw_missed() == 0
        assert (await house.one("post")).filling
        assert await house.draw_missed() == 1

    run(scenario())
