"""What operators see of serving: caches, failures, deadlines; and what routers and scalers may read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from terroir.common.errors import DataLoss, TerroirError, Unavailable
from terroir.inference.adapters.tiers import Tier
from terroir.inference.admission.metrics import Promise
from terroir.inference.engine.messages import Drawn, Failed, Raster, SpareTick
from terroir.inference.errors import DeadlineUnmeetable
from terroir.inference.metrics import InferenceMetrics
from tests.unit.inference.test_admission import Desk, run
from tests.unit.inference.tier_kit import TABLE, Tiers, small_file, version_name


def promises(desk: Desk) -> dict[str, float]:
    """Deadlines by what became of them, without those that nothing became of."""
    return {one: count for one in Promise if (count := desk.count("terroir_inference_deadlines_total", result=one))}


def test_a_deadline_is_kept_when_the_pictures_are_there_before_it() -> None:
    async def scenario(desk: Desk) -> None:
        place = await desk.come(seconds=20)
        desk.clock.advance(11)
        desk.admission.drawn(place, 0.0, 0.0)
        await desk.go(place)
        assert promises(desk) == {"kept": 1}
        assert desk.count("terroir_inference_request_seconds_sum", priority="NORMAL") == 11

    run(scenario)


def test_pictures_that_come_after_the_deadline_break_it_once() -> None:
    async def scenario(desk: Desk) -> None:
        place = await desk.come(seconds=20)
        desk.clock.advance(21)
        desk.admission.drawn(place, 0.0, 0.0)
        await desk.go(place)
        assert promises(desk) == {"broken": 1}

    run(scenario)


@pytest.mark.parametrize(("waited", "seen"), [(5, {}), (20, {"broken": 1})], ids=["gives up", "its deadline passes"])
def test_who_gives_up_early_was_promised_nothing_that_was_broken(waited: float, seen: dict[str, float]) -> None:
    async def scenario(desk: Desk) -> None:
        place = await desk.come(seconds=20)
        desk.clock.advance(waited)
        await desk.go(place)
        assert promises(desk) == seen

    run(scenario)


def test_a_deadline_that_load_makes_too_short_is_declined_and_one_that_nobody_could_keep_impossible() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.come(seconds=11)  # 10 steps of 1 s
        for seconds in (12, 5):
            with pytest.raises(DeadlineUnmeetable):
                await desk.come(seconds=seconds)
        assert promises(desk) == {"declined": 1, "impossible": 1}

    run(scenario, tick=1.0)


def test_who_is_refused_at_its_turn_for_having_waited_too_long_is_declined_once() -> None:
    async def scenario(desk: Desk) -> None:
        running = await desk.come()
        waiting = await desk.come(seconds=21)
        desk.clock.advance(20.95)
        await desk.go(running)
        assert isinstance(waiting.decided.exception(), DeadlineUnmeetable)
        await desk.go(waiting)
        assert sum(promises(desk).values()) == 1

    run(scenario, tick=1.0)


def test_calls_without_a_deadline_promise_nothing() -> None:
    async def scenario(desk: Desk) -> None:
        place = await desk.come()
        desk.clock.advance(3600)
        desk.admission.drawn(place, 0.0, 0.0)
        assert promises(desk) == {}

    run(scenario)


def test_a_query_of_a_tier_is_one_that_no_faster_tier_answered(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path)
    for tier in (Tier.DEVICE, Tier.HOST, Tier.HOST, Tier.REGISTRY):
        tiers.metrics.hit(tier)
    asked = [tiers.counted("adapter_queries_total", tier=tier) for tier in Tier]
    assert asked == [4, 3, 1, 1]
    assert [tiers.counted("adapter_hits_total", tier=tier) for tier in Tier] == [1, 2, 0, 1]


def test_residents_and_budgets_are_counted_by_tier(tmp_path: Path) -> None:
    async def scenario() -> None:
        tiers = Tiers(tmp_path, host_bytes=4096, disk_bytes=8192, device_bytes=2048)
        assert [tiers.counted("cache_budget_bytes", tier=tier) for tier in ("device", "host", "disk")] == [
            2048, 4096, 8192,
        ]  # fmt: skip
        for number in (1, 2):
            version = tiers.registry.publish(version_name(number), small_file(number))
            adapter = await tiers.residency.prefetch(version, TABLE)
            if number == 1:
                assert tiers.device.prefetch(version.file_digest, adapter)
        await tiers.residency.close()
        assert [tiers.counted("adapters_resident", tier=tier) for tier in ("device", "host", "disk")] == [1, 2, 2]
        tiers.device.reset()
        assert tiers.counted("adapters_resident", tier="device") == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("failure", "altered", "reason"),
    [
        (Unavailable("refused", reason="SERVICE_UNREACHABLE"), b"", "REGISTRY_UNREACHABLE"),
        (DataLoss("damaged there", reason="STORE_BLOB_CORRUPT"), b"", "STORE_BLOB_CORRUPT"),
        (None, b"x", "ADAPTER_CORRUPT"),
    ],
)
def test_loads_that_fail_are_counted_by_reason(
    tmp_path: Path, failure: TerroirError | None, altered: bytes, reason: str
) -> None:
    async def scenario() -> None:
        tiers = Tiers(tmp_path)
        version = tiers.registry.publish(version_name(1), small_file(1))
        tiers.registry.failure, tiers.registry.altered = failure, altered
        for _ in range(2):
            with pytest.raises(TerroirError) as refused:
                await tiers.residency.prefetch(version, TABLE)
            assert refused.value.reason == reason
        assert tiers.counted("adapter_load_failures_total", reason=reason) == 2

    asyncio.run(scenario())


def test_pictures_and_failures_of_the_engine_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = InferenceMetrics(registry)
    metrics.job_event(Drawn("job", 0, Raster(1, 1, b"abc")))
    metrics.job_event(Failed("job", "RESOURCE_EXHAUSTED", "DEVICE_MEMORY_FULL", "too large"))
    assert registry.get_sample_value("terroir_inference_images_generated_total") == 1
    reason = {"reason": "DEVICE_MEMORY_FULL"}
    assert registry.get_sample_value("terroir_inference_engine_failures_total", reason) == 1


def test_spare_rows_that_were_offered_and_filled_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = InferenceMetrics(registry)
    names = [f"terroir_inference_spare_rows_{what}_total" for what in ("offered", "filled")]
    assert [registry.get_sample_value(name) for name in names] == [0, 0]
    for tick in (SpareTick(offered=30, filled=4), SpareTick(offered=30, filled=30)):
        metrics.spare_tick(tick)
    assert [registry.get_sample_value(name) for name in names] == [60, 34]


def test_an_engine_is_ready_from_its_model_to_its_end() -> None:
    registry = CollectorRegistry()
    metrics = InferenceMetrics(registry)
    seen = [registry.get_sample_value("terroir_inference_engine_ready")]
    for ready in (True, False):
        metrics.engine_ready(ready)
        seen.append(registry.get_sample_value("terroir_inference_engine_ready"))
    assert seen == [0, 1, 0]
