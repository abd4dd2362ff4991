"""The directory of device memory, against an engine that refuses what it could not obey."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from terroir.inference.adapters.device_tier import DeviceTier
from terroir.inference.engine.wearing.device_adapter import on_device
from terroir.inference.engine.wearing.product_factors import Hadamard
from terroir.inference.errors import AdapterDeviceMemoryFull, ModelLoading
from terroir.lora.adapter import Adapter
from tests.unit.inference.tier_kit import SIZE, FakeDevice, Tiers, small_adapter
from tests.unit.lora.lycoris_adapters import lycoris_adapter


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    return Tiers(tmp_path, device_bytes=2 * SIZE)


def some(*digests: str) -> dict[str, Adapter]:
    """Adapters by digest."""
    return {digest: small_adapter(1) for digest in digests}


async def draw(device: DeviceTier, *digests: str) -> None:
    """A request that needs them."""
    async with device.hold(some(*digests)):
        pass


def test_an_adapter_is_sent_once_and_the_one_that_was_used_longest_ago_is_dropped(tiers: Tiers) -> None:
    async def scenario() -> None:
        for digest in ("a", "b", "a", "c"):
            await draw(tiers.device, digest)

    asyncio.run(scenario())
    assert tiers.engine.commands == [("put", "a"), ("put", "b"), ("drop", "b"), ("put", "c")]
    assert tiers.device.used_bytes == 2 * SIZE == tiers.counted("cache_bytes", tier="device")
    assert tiers.counted("cache_evictions_total", tier="device") == 1


def test_what_jobs_draw_with_is_never_dropped_and_who_finds_no_room_is_told_to_come_back(tiers: Tiers) -> None:
    async def scenario() -> None:
        async with tiers.device.hold(some("a", "b")):
            with pytest.raises(AdapterDeviceMemoryFull) as refused:
                await draw(tiers.device, "b", "c")
            assert refused.value.retry_after_seconds
            assert tiers.engine.held == {"a", "b"}
        await draw(tiers.device, "b", "c")

    asyncio.run(scenario())
    assert tiers.engine.held == {"b", "c"}


def test_a_prefetch_takes_free_room_only(tiers: Tiers) -> None:
    assert [tiers.device.prefetch(digest, small_adapter(1)) for digest in ("a", "b", "c", "a")] == [
        True, True, False, True,
    ]  # fmt: skip
    assert tiers.engine.commands == [("put", "a"), ("put", "b")]


def test_an_engine_that_restarts_has_nothing_and_is_given_what_requests_need_again(tiers: Tiers) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as old:
            await old.enter_async_context(tiers.device.hold(some("a", "b")))
            tiers.device.reset()
            tiers.engine.held.clear()
            assert tiers.device.used_bytes == 0
            async with tiers.device.hold(some("a")):
                # The old request lets go of what the old engine had: this must not touch what the new one has.
                await old.aclose()
                assert tiers.engine.held == {"a"}
                assert tiers.device.used_bytes == SIZE

    asyncio.run(scenario())
    assert tiers.engine.commands[-1] == ("put", "a")


def test_without_an_engine_a_request_is_refused_and_nothing_is_noted(tiers: Tiers) -> None:
    tiers.engine.gone = True
    with pytest.raises(ModelLoading):
        asyncio.run(draw(tiers.device, "a"))
    assert not tiers.device.prefetch("a", small_adapter(1))
    assert "a" not in tiers.device
    tiers.engine.gone = False
    asyncio.run(draw(tiers.device, "a"))
    assert tiers.engine.held == {"a"}


def test_a_withdrawn_adapter_goes_when_its_last_job_ends(tiers: Tiers) -> None:
    async def scenario() -> None:
        async with tiers.device.hold(some("a")):
            tiers.device.forget("a")
            assert tiers.engine.held == {"a"}
        assert tiers.engine.held == set()
        tiers.device.forget("never here")

    asyncio.run(scenario())


def test_a_put_that_fails_half_way_leaves_nothing_pinned(tiers: Tiers) -> None:
    class Flaky(FakeDevice):
        def put(self, digest: str, adapter: Adapter) -> None:
            if digest == "b":
                raise ModelLoading("gone")
            super().put(digest, adapter)

    engine = Flaky()
    device = DeviceTier(engine, 2 * SIZE, tiers.metrics)
    with pytest.raises(ModelLoading):
        asyncio.run(draw(device, "a", "b"))
    device.forget("a")
    assert engine.held == set()


def test_a_stack_larger_than_the_device_is_refused_before_anything_is_sent(tiers: Tiers) -> None:
    with pytest.raises(AdapterDeviceMemoryFull) as refused:
        asyncio.run(draw(tiers.device, "a", "b", "c"))
    assert "TERROIR_INFERENCE_ADAPTER_DEVICE_BYTES" in str(refused.value)
    assert refused.value.retry_after_seconds is None, "it would never fit"
    assert tiers.engine.commands == []


def test_a_loha_counts_by_its_factors_which_is_what_the_engine_keeps(tmp_path: Path) -> None:
    """Whole, one for SD 1.5's denoiser would take 3.4 GB and fit into no budget."""
    tiers = Tiers(tmp_path)
    adapter = lycoris_adapter(1, "loha plain", rank=2)
    assert tiers.device.prefetch("a", adapter)
    prepared = on_device(adapter, "cpu")
    held = [part for each in prepared.values() if isinstance(each, Hadamard) for part in (each.first, each.second)]
    assert len(held) == 2 * len(adapter.modules)
    assert tiers.device.used_bytes == sum(part.a.nbytes + part.b.nbytes for part in held if part.a is not None)
