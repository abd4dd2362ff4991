"""From names to adapters that a request holds: where they were found, and what is refused before it costs anything."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from terroir.common.errors import FailedPrecondition, TerroirError
from terroir.inference.adapters.sources import Recipe
from terroir.inference.adapters.styling import Base, Style
from terroir.inference.adapters.tiers import Tier
from terroir.inference.errors import (
    AdapterBaseMismatch,
    AdapterCorrupt,
    AdapterMatchesNothing,
    AdapterMemoryFull,
    AdapterWithdrawn,
    RegistryUnreachable,
    TooManyAdapters,
)
from terroir.inference.request.wish import Limits, RawWish, Wish, check_wish
from tests.unit.inference.tier_kit import BASE, SIZE, Tiers, settled, small_file, version_name

LIMITS = Limits(max_pixels=1 << 20, native_resolution=64, default_guidance_scale=3.0)


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    return Tiers(tmp_path)


def wish(*adapters: str, region: str = "", weight: float = 1.0) -> Wish:
    """A request for a picture with adapters."""
    raw = RawWish(
        prompt="a hill", negative_prompt="", adapters=tuple((name, weight, None) for name in adapters), region=region,
        width=0, height=0, steps=1, guidance_scale=None, sampler="", seeds=(1,), preview_interval_steps=0,
    )  # fmt: skip
    return check_wish(raw, LIMITS)


async def worn(tiers: Tiers, asked: Wish, base: Base = BASE) -> Style:
    """The style of a request that draws, on the device too, and is over."""
    async with tiers.stylist.dress(asked, base) as style, tiers.device.hold(style.adapters):
        return style


def found(style: Style) -> list[Tier]:
    """In the order in which they were asked for."""
    return [loaded.found for loaded in style.loaded.values()]


def test_a_request_is_told_where_its_adapter_was(tiers: Tiers, tmp_path: Path) -> None:
    tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        assert found(await worn(tiers, wish("adapters/a"))) == [Tier.REGISTRY]
        assert found(await worn(tiers, wish("adapters/a"))) == [Tier.DEVICE]
        tiers.device.reset()
        tiers.engine.held.clear()
        assert found(await worn(tiers, wish("adapters/a"))) == [Tier.HOST]
        tiers.evict(tiers.registry.versions[version_name(1)].file_digest)
        assert found(await worn(tiers, wish("adapters/a"))) == [Tier.DISK]

    asyncio.run(scenario())
    assert [tiers.counted("adapter_hits_total", tier=tier) for tier in Tier] == [1, 1, 1, 1]
    assert tiers.counted("adapter_load_seconds_count", source="registry") == 1


def test_adapters_of_one_request_load_at_the_same_time_and_count_as_cold(tiers: Tiers) -> None:
    async def scenario() -> None:
        for number in (1, 2, 3):
            tiers.registry.publish(version_name(number), small_file(number))
        tiers.registry.gate.clear()
        task = asyncio.create_task(worn(tiers, wish(*(version_name(number) for number in (1, 2, 3)))))
        await settled(lambda: len(tiers.registry.downloads) == 3)
        tiers.registry.gate.set()
        assert found(await task) == [Tier.REGISTRY] * 3

    asyncio.run(scenario())


def test_two_versions_with_one_file_are_loaded_once_and_each_request_sees_its_own_name(tiers: Tiers) -> None:
    for name in (version_name(1), version_name(1, "b")):
        tiers.registry.publish(name, small_file(1))

    async def scenario() -> list[str]:
        styles = [await worn(tiers, wish(name)) for name in ("adapters/a", "adapters/b")]
        return [loaded.version for style in styles for loaded in style.loaded.values()]

    assert asyncio.run(scenario()) == [version_name(1), version_name(1, "b")]
    assert len(tiers.registry.downloads) == 1


@pytest.mark.parametrize("region", ["", "regions/CN"])
def test_a_hundred_adapters_are_refused_before_anything_is_looked_up(tiers: Tiers, region: str) -> None:
    with pytest.raises(TooManyAdapters):
        asyncio.run(worn(tiers, wish(*(f"adapters/a{number}" for number in range(100)), region=region)))
    assert tiers.registry.lookups == []


def test_a_region_that_makes_it_too_many_is_refused_before_versions_are_looked_up(tiers: Tiers) -> None:
    tiers.registry.recipes["regions/CN"] = Recipe(tuple((f"adapters/r{n}", 1.0) for n in range(5)), "", "", ())
    with pytest.raises(TooManyAdapters):
        asyncio.run(worn(tiers, wish(*(f"adapters/a{number}" for number in range(4)), region="regions/CN")))
    assert tiers.registry.lookups == ["regions/CN"]


def test_a_caller_who_vanishes_leaves_the_load_to_the_others_and_nothing_pinned(tiers: Tiers) -> None:
    async def scenario() -> None:
        tiers.registry.publish(version_name(1), small_file(1))
        tiers.registry.gate.clear()
        stays, goes = (asyncio.create_task(worn(tiers, wish("adapters/a"))) for _ in range(2))
        await settled(lambda: bool(tiers.registry.downloads))
        goes.cancel()
        await asyncio.gather(goes, return_exceptions=True)
        tiers.registry.gate.set()
        assert found(await stays) == [Tier.REGISTRY]
        assert tiers.pins() == 0 and len(tiers.registry.downloads) == 1

    asyncio.run(scenario())


def test_a_load_that_every_caller_left_is_kept_for_the_next_one(tiers: Tiers) -> None:
    async def scenario() -> None:
        tiers.registry.publish(version_name(1), small_file(1))
        tiers.registry.gate.clear()
        goes = asyncio.create_task(worn(tiers, wish("adapters/a")))
        await settled(lambda: bool(tiers.registry.downloads))
        goes.cancel()
        await asyncio.gather(goes, return_exceptions=True)
        tiers.registry.gate.set()
        await settled(lambda: bool(tiers.resident()))
        assert tiers.pins() == 0

    asyncio.run(scenario())


def test_a_known_name_is_drawn_with_a_warning_while_the_registry_is_gone(tiers: Tiers) -> None:
    tiers.registry.publish(version_name(1), small_file(1))
    tiers.registry.recipes["regions/CN"] = Recipe((("adapters/a", 0.5),), "misty", "", ("regions/CN",))

    async def scenario() -> None:
        assert (await worn(tiers, wish(region="regions/CN"))).warnings == []
        tiers.registry.go()
        style = await worn(tiers, wish(region="regions/CN"))
        assert len(style.warnings) == 2 and style.prompt == "misty a hill" and len(style.loaded) == 1
        tiers.evict(tiers.registry.versions[version_name(1)].file_digest)
        assert found(await worn(tiers, wish("adapters/a"))) == [Tier.DISK]
        assert (await worn(tiers, wish())).warnings == []

    asyncio.run(scenario())


def test_a_known_name_whose_file_is_nowhere_here_says_so(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        await worn(tiers, wish("adapters/a"))
        await tiers.loader.close()
        tiers.evict(version.file_digest)
        tiers.disk.forget(version.file_digest)
        tiers.registry.go()
        with pytest.raises(RegistryUnreachable) as refused:
            await worn(tiers, wish("adapters/a"))
        assert "neither in memory nor on disk" in str(refused.value) and refused.value.retry_after_seconds

    asyncio.run(scenario())


def test_a_registry_that_goes_while_a_file_comes_fails_that_request_and_the_next_one_works(tiers: Tiers) -> None:
    async def scenario() -> None:
        tiers.registry.publish(version_name(1), small_file(1))
        tiers.registry.gate.clear()
        tasks = [asyncio.create_task(worn(tiers, wish("adapters/a"))) for _ in range(3)]
        await settled(lambda: bool(tiers.registry.downloads))
        tiers.registry.go()
        tiers.registry.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [RegistryUnreachable] * 3
        assert tiers.resident() == []
        tiers.registry.failure = None
        assert found(await worn(tiers, wish("adapters/a"))) == [Tier.REGISTRY]

    asyncio.run(scenario())


def test_a_withdrawn_version_is_refused_though_it_is_in_memory(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        await worn(tiers, wish("adapters/a"))
        tiers.registry.versions[version.name] = replace(version, withdrawn="a mistake")
        with pytest.raises(AdapterWithdrawn):
            await worn(tiers, wish("adapters/a"))
        tiers.registry.go()
        with pytest.raises(AdapterWithdrawn):
            await worn(tiers, wish("adapters/a"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "fields", "error", "reason", "says"),
    [
        (small_file(1, broken=float("nan")), {}, FailedPrecondition, "ADAPTER_NOT_FINITE", version_name(1)),
        (small_file(1, broken=float("inf")), {}, FailedPrecondition, "ADAPTER_NOT_FINITE", version_name(1)),
        (small_file(1, rank=5), {}, FailedPrecondition, "ADAPTER_RANK_TOO_LARGE", "TERROIR_INFERENCE_MAX_RANK"),
        (
            small_file(1),
            {"base_digest": "c" * 64},
            AdapterBaseMismatch,
            "ADAPTER_BASE_MISMATCH",
            "use an adapter for this base",
        ),
        (small_file(1), {"file_digest": "d" * 64}, AdapterCorrupt, "ADAPTER_CORRUPT", "publish it again"),
        (b"no adapter", {}, FailedPrecondition, "ADAPTER_FILE_UNREADABLE", version_name(1)),
        (small_file(1), {"size_bytes": 1 << 21}, AdapterMemoryFull, "ADAPTER_MEMORY_FULL", "MEMORY_BYTES"),
    ],
)
def test_what_cannot_be_worn_is_refused_with_its_reason_and_never_kept(
    tmp_path: Path, data: bytes, fields: dict[str, str | int], error: type[TerroirError], reason: str, says: str
) -> None:
    tiers = Tiers(tmp_path, max_rank=4)
    tiers.registry.publish(version_name(1), data, **fields)
    for _ in range(2):
        with pytest.raises(error) as refused:
            asyncio.run(worn(tiers, wish("adapters/a")))
        assert refused.value.reason == reason
        assert says in str(refused.value)
    assert tiers.resident() == [] and tiers.engine.commands == []
    if reason == "ADAPTER_CORRUPT":
        assert list(tmp_path.iterdir()) == [], "a file with a wrong digest must not reach the disk"


def test_an_adapter_that_covers_nothing_of_the_base_is_refused(tiers: Tiers) -> None:
    tiers.registry.publish(version_name(1), small_file(1))
    other = Base(BASE.name, BASE.digest, {"unet.conv_in": (8, 8, 3, 3)})
    with pytest.raises(AdapterMatchesNothing):
        asyncio.run(worn(tiers, wish("adapters/a"), other))


def test_memory_full_of_what_others_draw_with_refuses_and_the_next_request_finds_room(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path, host_bytes=1 << 12)
    count = (1 << 12) // SIZE
    for number in range(count + 1):
        tiers.registry.publish(version_name(number + 1), small_file(number))

    async def scenario() -> None:
        holds = [tiers.stylist.dress(wish(version_name(n + 1)), BASE) for n in range(count)]
        for hold in holds:
            await hold.__aenter__()
        with pytest.raises(AdapterMemoryFull) as refused:
            await worn(tiers, wish("adapters/a"))
        assert refused.value.retry_after_seconds
        await holds[0].__aexit__(None, None, None)
        await worn(tiers, wish("adapters/a"))
        for hold in holds[1:]:
            await hold.__aexit__(None, None, None)
        assert tiers.pins() == 0

    asyncio.run(scenario())


def test_reweighting_moves_nothing(tiers: Tiers) -> None:
    tiers.registry.publish(version_name(1), small_file(1))

    async def scenario() -> None:
        for weight in (1.0, 0.5, -2.0):
            style = await worn(tiers, wish("adapters/a", weight=weight))
            assert style.composition.parts[0].weight == weight

    asyncio.run(scenario())
    assert len(tiers.engine.commands) == 1 and len(tiers.registry.downloads) == 1
