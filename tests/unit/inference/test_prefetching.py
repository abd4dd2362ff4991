"""What is brought here before a request asks, and what changes in the registry lead to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from terroir.common.errors import Internal, PermissionDenied, TerroirError, Unavailable
from terroir.inference.adapters.prefetching import MAX_WANTED, Cause, Prefetcher
from terroir.inference.adapters.reacting import RegistryReactions
from terroir.inference.adapters.sources import Change, ChangeKind, Recipe, VersionInfo
from terroir.inference.adapters.warming import Warmer
from tests.unit.inference.tier_kit import (
    BASE,
    SIZE,
    TABLE,
    Tiers,
    beside,
    settled,
    small_adapter,
    small_file,
    version_name,
)


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    return Tiers(tmp_path)


def reactions(tiers: Tiers) -> RegistryReactions:
    return RegistryReactions(tiers.directory, tiers.residency, tiers.device, tiers.prefetcher, tiers.warmer)


def run(tiers: Tiers, scenario: Coroutine[Any, Any, None]) -> None:
    """Beside a prefetcher that works."""
    asyncio.run(beside(tiers.prefetcher.run(), scenario))


def results(tiers: Tiers) -> float:
    """Prefetches that ended."""
    return sum(
        sample.value
        for metric in tiers.counters.collect()
        for sample in metric.samples
        if sample.name == "terroir_inference_prefetches_total" and sample.labels["result"] != "dropped"
    )


async def told(tiers: Tiers, kind: ChangeKind, name: str) -> None:
    await reactions(tiers).react(Change("j1", kind, name))


def test_a_publish_is_on_the_device_before_anybody_asks(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        await told(tiers, ChangeKind.PUBLISHED, version.name)
        await settled(lambda: version.file_digest in tiers.device)
        assert tiers.resident() == [version.name] and tiers.pins() == 0

    run(tiers, scenario())
    assert tiers.counted("prefetches_total", cause="publish", result="loaded") == 1


def test_publishes_before_the_base_is_loaded_wait_for_it(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        await told(tiers, ChangeKind.PUBLISHED, version.name)
        for _ in range(10):
            await asyncio.sleep(0)
        assert tiers.registry.lookups == []
        tiers.prefetcher.begin(BASE)
        await settled(lambda: bool(tiers.resident()))

    run(tiers, scenario())


def test_a_burst_of_a_thousand_keeps_the_newest_and_drops_the_oldest(tiers: Tiers) -> None:
    async def scenario() -> None:
        for number in range(1, 1001):
            version = tiers.registry.publish(version_name(number, f"a{number}"), small_file(number))
            await told(tiers, ChangeKind.PUBLISHED, version.name)
        tiers.prefetcher.begin(BASE)
        await settled(lambda: results(tiers) == MAX_WANTED)

    run(tiers, scenario())
    numbers = sorted(int(name.rsplit("/", 1)[1]) for name in tiers.resident())
    assert numbers == list(range(1001 - MAX_WANTED, 1001))
    assert int(tiers.registry.lookups[0].rsplit("/", 1)[1]) == 1000, "the newest goes first"
    assert tiers.counted("prefetches_total", cause="publish", result="dropped") == 1000 - MAX_WANTED


def test_a_burst_never_evicts_what_requests_hold_and_nothing_from_the_device(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path, host_bytes=1 << 10, device_bytes=2 * SIZE)
    held = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        async with (
            tiers.residency.hold(held, TABLE) as loaded,
            tiers.device.hold({held.file_digest: loaded.adapter, "other": small_adapter(1)}),
        ):
            for number in range(2, 32):
                version = tiers.registry.publish(version_name(number), small_file(number))
                await told(tiers, ChangeKind.PUBLISHED, version.name)
            await settled(lambda: results(tiers) == 30)
            assert held.name in tiers.resident()
            assert tiers.engine.held == {held.file_digest, "other"}

    run(tiers, scenario())
    assert tiers.residency.used_bytes <= 1 << 10


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"base_digest": "c" * 64}, "other_base"),
        ({"withdrawn": "a mistake"}, "withdrawn"),
        ({"file_digest": "d" * 64}, "failed"),
    ],
)
def test_what_is_of_no_use_here_is_left_and_the_next_one_comes(
    tiers: Tiers, fields: dict[str, str], result: str
) -> None:
    tiers.registry.publish(version_name(1), small_file(1), **fields)
    good = tiers.registry.publish(version_name(2), small_file(2))

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        tiers.prefetcher.want(version_name(1), Cause.PUBLISH)
        await settled(lambda: tiers.counted("prefetches_total", cause="publish", result=result) == 1)
        tiers.prefetcher.want(good.name, Cause.PUBLISH)
        await settled(lambda: tiers.resident() == [good.name])

    run(tiers, scenario())


def test_a_replica_that_does_not_see_the_publish_yet_is_asked_again(tiers: Tiers) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            tiers.registry.publish(version_name(1), small_file(1))

    tiers.prefetcher = Prefetcher(tiers.directory, tiers.residency, tiers.device, tiers.metrics, pause=pause)

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        tiers.prefetcher.want(version_name(1), Cause.PUBLISH)
        await settled(lambda: bool(tiers.resident()))

    run(tiers, scenario())
    assert len(pauses) == 2 and pauses == sorted(pauses)


def test_names_that_requests_used_follow_their_alias(tiers: Tiers) -> None:
    first = tiers.registry.publish(version_name(1), small_file(1))
    second = tiers.registry.publish(version_name(2), small_file(2))
    tiers.registry.aliases["adapters/a@production"] = first.name

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        await tiers.directory.version("adapters/a@production")
        tiers.registry.aliases["adapters/a@production"] = second.name
        await told(tiers, ChangeKind.ALIASES, "adapters/a")
        await settled(lambda: tiers.resident() == [second.name])
        tiers.registry.go()
        assert (await tiers.directory.version("adapters/a@production")).value == second

    run(tiers, scenario())


def test_a_withdrawn_version_leaves_all_tiers_once_nobody_draws_with_it(tiers: Tiers, tmp_path: Path) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        async with (
            tiers.residency.hold(version, TABLE) as loaded,
            tiers.device.hold({version.file_digest: loaded.adapter}),
        ):
            tiers.registry.versions[version.name] = replace(version, withdrawn="a mistake")
            await told(tiers, ChangeKind.DEPRECATED, version.name)
            assert tiers.engine.held, "the request that draws goes on"
        assert tiers.resident() == [] and not tiers.engine.held
        await tiers.residency.close()
        assert list(tmp_path.iterdir()) == []

    asyncio.run(scenario())


def test_a_version_that_is_withdrawn_while_its_file_is_written_leaves_the_disk_too(
    tiers: Tiers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, written, write = tiers.registry.publish(version_name(1), small_file(1)), Event(), tiers.disk.put
    monkeypatch.setattr(tiers.disk, "put", lambda digest, data: written.wait(20) and write(digest, data))

    async def scenario() -> None:
        await tiers.residency.prefetch(version, TABLE)
        tiers.registry.versions[version.name] = replace(version, withdrawn="a mistake")
        await told(tiers, ChangeKind.DEPRECATED, version.name)
        written.set()
        await tiers.residency.close()
        assert tiers.disk.used_bytes == 0 and list(tmp_path.iterdir()) == []

    asyncio.run(scenario())


def test_a_version_that_is_withdrawn_while_it_loads_does_not_stay(tiers: Tiers, tmp_path: Path) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        tiers.registry.gate.clear()

        async def use() -> None:
            async with tiers.residency.hold(version, TABLE):
                pass

        users = [asyncio.create_task(use()) for _ in range(2)]
        await settled(lambda: bool(tiers.registry.downloads))
        tiers.registry.versions[version.name] = replace(version, withdrawn="a mistake")
        await told(tiers, ChangeKind.DEPRECATED, version.name)
        tiers.registry.gate.set()
        await asyncio.gather(*users)
        assert tiers.resident() == []
        await settled(lambda: not list(tmp_path.iterdir()))
        tiers.registry.versions[version.name] = version  # reinstated
        await use()
        assert tiers.resident() == [version.name]

    asyncio.run(scenario())


def test_a_deprecation_without_cause_and_one_of_an_unknown_version_take_nothing_away(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        await tiers.residency.prefetch(version, TABLE)
        await told(tiers, ChangeKind.DEPRECATED, version.name)
        await told(tiers, ChangeKind.DEPRECATED, version_name(9))
        assert tiers.resident() == [version.name]

    asyncio.run(scenario())


def test_a_withdrawal_that_cannot_be_looked_up_must_be_told_again(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        await tiers.directory.version(version.name)
        tiers.registry.go()
        for name in (version.name, version_name(9)):
            with pytest.raises(Unavailable):
                await told(tiers, ChangeKind.DEPRECATED, name)

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [PermissionDenied("no"), Internal("broken")])
def test_a_withdrawal_that_can_never_be_looked_up_does_not_stop_the_watch(tiers: Tiers, failure: TerroirError) -> None:
    tiers.registry.failure = failure
    asyncio.run(told(tiers, ChangeKind.DEPRECATED, version_name(1)))


def test_what_the_registry_could_not_give_is_fetched_when_it_is_back(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        tiers.registry.go()
        tiers.prefetcher.want(version.name, Cause.PUBLISH)
        await settled(lambda: results(tiers) == 1)
        tiers.registry.failure = None
        await reactions(tiers).begun(missed=False)
        await settled(lambda: tiers.resident() == [version.name])

    run(tiers, scenario())


def test_a_defect_that_one_file_uncovers_does_not_end_prefetching(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = (tiers.registry.publish(version_name(number), small_file(number)) for number in (1, 2))
    real = tiers.registry.download

    async def download(version: VersionInfo) -> bytes:
        if version == bad:
            raise ZeroDivisionError
        return await real(version)

    monkeypatch.setattr(tiers.registry, "download", download)

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        tiers.prefetcher.want(bad.name, Cause.PUBLISH)
        await settled(lambda: tiers.counted("prefetches_total", cause="publish", result="failed") == 1)
        tiers.prefetcher.want(good.name, Cause.PUBLISH)
        await settled(lambda: tiers.resident() == [good.name])

    run(tiers, scenario())


def test_after_a_gap_in_the_watch_what_is_here_is_looked_at_again(tiers: Tiers) -> None:
    versions = [tiers.registry.publish(version_name(number), small_file(number)) for number in (1, 2)]

    async def scenario() -> None:
        for version in versions:
            await tiers.residency.prefetch(version, TABLE)
        tiers.registry.versions[versions[0].name] = replace(versions[0], withdrawn="a mistake")
        await reactions(tiers).begun(missed=False)
        assert len(tiers.resident()) == 2
        await reactions(tiers).begun(missed=True)
        assert tiers.resident() == [versions[1].name]

    asyncio.run(scenario())


def warmer(tiers: Tiers, *, always: tuple[str, ...] = (), most: int = 2, budget_bytes: int = 1 << 20) -> Warmer:
    return Warmer(
        tiers.directory, tiers.popularity, tiers.prefetcher, always=always, most=most, budget_bytes=budget_bytes,
        interval_seconds=60,
    )  # fmt: skip


def region(tiers: Tiers, code: str, *numbers: int) -> None:
    """A region whose recipe has these versions."""
    for number in numbers:
        tiers.registry.publish(version_name(number, f"r{number}"), small_file(number))
    tiers.registry.recipes[f"regions/{code}"] = Recipe(tuple((f"adapters/r{n}", 1.0) for n in numbers), "", "", ())


def warmed(tiers: Tiers, warmer: Warmer) -> list[str]:
    """Adapters that one look has fetched, in the order in which they were begun."""

    async def scenario() -> None:
        await warmer.warm()
        tiers.prefetcher.begin(BASE)
        wanted = len(tiers.prefetcher._wanted)
        await settled(lambda: results(tiers) == wanted)

    run(tiers, scenario())
    assert len(tiers.registry.downloads) == len(tiers.resident())
    return [name.split("/")[1] for name in tiers.registry.lookups if "/versions/" in name]


def test_the_most_popular_regions_are_fetched_first_and_the_rest_are_not(tiers: Tiers) -> None:
    for code, count in (("A", 1), ("B", 3), ("C", 2)):
        region(tiers, code, ord(code))
        for _ in range(count):
            tiers.popularity.count(f"regions/{code}")
    assert warmed(tiers, warmer(tiers)) == ["r66", "r67"]


def test_without_requests_the_named_regions_are_fetched(tiers: Tiers) -> None:
    region(tiers, "A", 1, 2)
    region(tiers, "B", 3)
    assert warmed(tiers, warmer(tiers, always=("regions/A", "regions/none"))) == ["r1", "r2"]


def test_what_does_not_fit_the_budget_is_left(tiers: Tiers) -> None:
    region(tiers, "A", 1, 2, 3)
    size = len(small_file(1))
    assert warmed(tiers, warmer(tiers, always=("regions/A",), budget_bytes=2 * size)) == ["r1", "r2"]


def test_a_region_that_changes_wakes_the_warmer(tiers: Tiers) -> None:
    region(tiers, "A", 1)
    looks = warmer(tiers, always=("regions/A",))
    reacting = replace(reactions(tiers), warmer=looks)

    async def scenario() -> None:
        tiers.prefetcher.begin(BASE)
        work = asyncio.create_task(looks.run())
        await settled(lambda: len(tiers.resident()) == 1)
        for number, kind in enumerate((ChangeKind.REGION, ChangeKind.RECIPE, ChangeKind.ALIASES), 2):
            region(tiers, "A", number)
            await reacting.react(Change("j1", kind, "regions/A" if kind is ChangeKind.REGION else "recipes/x"))
            await settled(lambda: len(tiers.resident()) == number)  # noqa: B023
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    run(tiers, scenario())


def test_a_registry_that_is_gone_does_not_end_the_warmer(tiers: Tiers) -> None:
    tiers.registry.go()
    assert warmed(tiers, warmer(tiers, always=("regions/A",))) == []
