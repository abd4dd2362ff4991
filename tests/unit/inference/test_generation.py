"""One request from wish to pictures: in which order things happen, and that nothing stays behind wherever it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.common.errors import ResourceExhausted
from terroir.inference.adapters.styling import Base, Style
from terroir.inference.admission.admission import Admission
from terroir.inference.admission.cost_model import Capacity, CostModel
from terroir.inference.admission.metrics import AdmissionMetrics
from terroir.inference.delivery.picture_files import PictureFormat
from terroir.inference.delivery.picture_pool import PicturePool
from terroir.inference.delivery.progress import AllMade, PictureMade, PreviewMade, Progress, StepMade, Waiting
from terroir.inference.delivery.provenance import ProvenanceProfile
from terroir.inference.engine.messages import (
    DrawJob,
    Drawn,
    EngineInfo,
    Finished,
    JobEvent,
    Previewed,
    Raster,
    Stepped,
    TickCost,
)
from terroir.inference.errors import EngineRestarted, PromptRefused
from terroir.inference.generation import Generator
from terroir.inference.request.safety import Safety, WordList
from terroir.inference.request.wish import RawWish, Wish
from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition

RASTER = Raster(8, 8, bytes(8 * 8 * 3))


class Studio:
    """An engine, a wardrobe and a device that only tell; `loads` and `ticks` are opened by the test."""

    def __init__(self, requests: int = 1) -> None:
        self.clock = FixedClock()
        self.told: list[str] = []
        self.held: set[str] = set()
        self.jobs: list[DrawJob] = []
        self.quick: set[str] = set()
        """Prompts whose adapters are there already."""
        self.loads, self.ticks = asyncio.Event(), asyncio.Event()
        self.loads.set()
        self.ticks.set()
        self.fails: Exception | None = None
        self.registry = CollectorRegistry()
        costs = CostModel()
        self.admission = Admission(Capacity(requests, 64, 32), 4, costs, self.clock, AdmissionMetrics(self.registry))
        self.info = EngineInfo(
            pid=1, device="cpu", base_digest="d" * 64, key_table={}, native_resolution=64, family="sd15",
            dtype="float32", profile=(TickCost(32 * 32, 2, 0.5), TickCost(32 * 32, 8, 0.8)),
        )  # fmt: skip
        self.pictures = PicturePool(1)
        self.generator = Generator(
            self, self, self.admission, self.pictures, self.clock, device=self,
            safety=Safety(WordList(("forbidden",)), self.pictures, lambda _stage: None), base="tiny",
            max_pixels=1 << 20, default_guidance_scale=3.0, profile=ProvenanceProfile.PRIVATE,
        )  # fmt: skip

    @asynccontextmanager
    async def dress(self, wish: Wish, base: Base) -> AsyncIterator[Style]:
        self.told.append(f"load {wish.prompt}")
        if wish.prompt not in self.quick:
            await self.loads.wait()
        async with self._holding("adapters of " + wish.prompt):
            yield Style(wish.prompt, "", Composition.of([]), {}, ())

    @asynccontextmanager
    async def hold(self, adapters: Mapping[str, Adapter]) -> AsyncIterator[None]:
        async with self._holding("device"):
            yield

    @asynccontextmanager
    async def draw(self, job: DrawJob) -> AsyncIterator[AsyncIterator[JobEvent]]:
        self.told.append(f"draw {job.prompt}")
        self.jobs.append(job)
        async with self._holding("mailbox"):
            yield self._events(job)

    async def _events(self, job: DrawJob) -> AsyncGenerator[JobEvent]:
        for step in (1, 2):
            await self.ticks.wait()
            if self.fails is not None:
                raise self.fails
            self.clock.advance(0.5)
            yield Stepped(job.id, step, 2, TickCost(32 * 32, 2, 0.5), "base")
            yield Previewed(job.id, 0, step, RASTER)
        self.clock.advance(0.25)
        yield Drawn(job.id, 0, RASTER)
        yield Finished(job.id, 1.25, ("cut",), 0)

    @asynccontextmanager
    async def _holding(self, what: str) -> AsyncIterator[None]:
        self.held.add(what)
        try:
            yield
        finally:
            self.held.discard(what)

    def generate(self, prompt: str = "a cat") -> AsyncGenerator[Progress]:
        raw = RawWish(prompt, "", (), "", 32, 32, 2, None, "", (7,), 1)
        return self.generator.generate(raw, PictureFormat.JPEG, None)

    def prepare(self, prompt: str = "a cover", seconds: float | None = None) -> AsyncGenerator[Progress]:
        raw = RawWish(prompt, "", (), "", 32, 32, 2, None, "", (7,), 1)
        return self.generator.prepare(raw, PictureFormat.JPEG, seconds)

    def ensure_empty(self) -> None:
        assert not self.held
        assert (self.admission.active, self.admission.waiting) == (0, 0)


def run(scenario: Callable[[Studio], Coroutine[Any, Any, None]], **fields: Any) -> None:
    """Play a scenario; at its end nothing may be held."""

    async def play() -> None:
        studio = Studio(**fields)
        await scenario(studio)
        studio.ensure_empty()
        studio.pictures.close()

    asyncio.run(play())


async def settle() -> None:
    """Let tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_request_waits_loads_draws_and_tells_where_its_time_went() -> None:
    async def scenario(studio: Studio) -> None:
        seen = [made async for made in studio.generate()]
        kinds = [Waiting, StepMade, PreviewMade, StepMade, PreviewMade, PictureMade, AllMade]
        assert [type(made) for made in seen] == kinds
        assert studio.told == ["load a cat", "draw a cat"]
        assert isinstance(seen[0], Waiting) and seen[0].position == 0
        assert seen[0].predicted_seconds == pytest.approx(1.0), "two ticks of the engine's profile"
        done = seen[-1]
        assert isinstance(done, AllMade) and done.warnings == ("cut",)
        assert (done.queue_seconds, done.load_seconds, done.hidden_load_seconds) == (0, 0, 0)
        again = studio.generate()
        first = await anext(again)
        assert isinstance(first, Waiting)
        assert first.predicted_seconds == pytest.approx(1.25), "decoding was learnt"
        await again.aclose()
        ratio = studio.registry.get_sample_value("terroir_inference_prediction_ratio_sum")
        assert ratio == pytest.approx(1.25)

    run(scenario)


def test_adapters_load_while_others_draw_and_that_load_is_hidden() -> None:
    async def scenario(studio: Studio) -> None:
        studio.ticks.clear()
        first = asyncio.ensure_future(_all(studio.generate("first")))
        await settle()
        studio.loads.clear()
        second = asyncio.ensure_future(_all(studio.generate("second")))
        await settle()
        assert studio.told == ["load first", "draw first", "load second"]
        studio.clock.advance(3)
        studio.loads.set()
        await settle()
        studio.ticks.set()
        await first
        done = (await second)[-1]
        assert isinstance(done, AllMade)
        assert done.load_seconds == done.hidden_load_seconds == 3
        assert done.queue_seconds == pytest.approx(3 + 1.25)
        hidden = studio.registry.get_sample_value("terroir_inference_load_wait_seconds_total", {"kind": "hidden"})
        assert hidden == 3

    run(scenario)


def test_a_slow_load_is_shown_and_blocks_nobody() -> None:
    async def scenario(studio: Studio) -> None:
        studio.loads.clear()
        slow = asyncio.ensure_future(_all(studio.generate("slow")))
        await settle()
        studio.quick.add("quick")
        assert isinstance((await _all(studio.generate("quick")))[-1], AllMade)
        studio.clock.advance(2)
        studio.loads.set()
        done = (await slow)[-1]
        assert isinstance(done, AllMade)
        assert (done.load_seconds, done.hidden_load_seconds) == (2 + 1.25, 0), "its turn was free all the time"

    run(scenario)


@pytest.mark.parametrize("events", range(1, 7))
def test_a_client_that_vanishes_after_any_event_leaves_nothing(events: int) -> None:
    async def scenario(studio: Studio) -> None:
        stream = studio.generate()
        for _ in range(events):
            await anext(stream)
        await stream.aclose()

    run(scenario)


@pytest.mark.parametrize("where", ["loading", "waiting", "drawing"])
def test_a_call_that_is_cancelled_anywhere_leaves_nothing(where: str) -> None:
    async def scenario(studio: Studio) -> None:
        studio.ticks.clear()
        before = asyncio.ensure_future(_all(studio.generate("before")))
        await settle()
        if where == "loading":
            studio.loads.clear()
        call = before if where == "drawing" else asyncio.ensure_future(_all(studio.generate("cancelled")))
        await settle()
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        if call is not before:
            assert "mailbox" in studio.held, "the other one still draws"
            studio.ticks.set()
            assert isinstance((await before)[-1], AllMade)

    run(scenario)


def test_a_request_that_the_engine_refuses_leaves_nothing_and_the_next_one_draws() -> None:
    async def scenario(studio: Studio) -> None:
        studio.fails = ResourceExhausted("no room", reason="DEVICE_MEMORY_FULL")
        with pytest.raises(ResourceExhausted):
            await _all(studio.generate("refused"))
        studio.ensure_empty()
        studio.fails = None
        assert isinstance((await _all(studio.generate("next")))[-1], AllMade)

    run(scenario)


def test_what_nobody_waits_for_takes_no_place_and_is_told_as_any_other() -> None:
    async def scenario(studio: Studio) -> None:
        studio.ticks.clear()
        many = [asyncio.ensure_future(_all(studio.prepare(f"cover {number}"))) for number in range(64)]
        while len(studio.jobs) < 64:
            await settle()
        assert (studio.admission.active, studio.admission.waiting) == (0, 0)
        assert len(studio.jobs) == 64 and all(job.spare and job.deadline is None for job in studio.jobs)
        waits = asyncio.ensure_future(_all(studio.generate("awaited")))
        while len(studio.jobs) < 65:
            await settle()
        assert not studio.jobs[-1].spare and studio.admission.active == 1
        studio.ticks.set()
        assert isinstance((await waits)[-1], AllMade)
        for seen in await asyncio.gather(*many):
            kinds = [StepMade, PreviewMade, StepMade, PreviewMade, PictureMade, AllMade]
            assert [type(made) for made in seen] == kinds
            assert isinstance(seen[-1], AllMade) and seen[-1].warnings == ("cut",)
        count = studio.registry.get_sample_value
        assert count("terroir_inference_request_seconds_count", {"priority": "BACKGROUND"}) == 0
        assert count("terroir_inference_prediction_ratio_count") == 1, "nothing is predicted for those nobody waits for"

    run(scenario)


def test_what_is_prepared_may_have_a_deadline() -> None:
    async def scenario(studio: Studio) -> None:
        await _all(studio.prepare(seconds=5.0))
        assert studio.jobs[0].deadline == pytest.approx(studio.clock.monotonic() - 1.25 + 5)

    run(scenario)


@pytest.mark.parametrize("where", ["loading", "drawing"])
def test_a_preparation_that_is_cancelled_leaves_nothing(where: str) -> None:
    async def scenario(studio: Studio) -> None:
        (studio.loads if where == "loading" else studio.ticks).clear()
        call = asyncio.ensure_future(_all(studio.prepare()))
        await settle()
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call

    run(scenario)


@pytest.mark.parametrize("events", range(1, 6))
def test_a_preparation_that_is_closed_after_any_event_leaves_nothing(events: int) -> None:
    async def scenario(studio: Studio) -> None:
        stream = studio.prepare()
        for _ in range(events):
            await anext(stream)
        await stream.aclose()

    run(scenario)


def test_what_is_prepared_is_checked_as_any_other_and_fails_with_its_engine() -> None:
    async def scenario(studio: Studio) -> None:
        with pytest.raises(PromptRefused):
            await _all(studio.prepare("a forbidden cat"))
        assert not studio.jobs
        studio.fails = EngineRestarted("ended", retry_after_seconds=3)
        with pytest.raises(EngineRestarted):
            await _all(studio.prepare())

    run(scenario)


async def _all(stream: AsyncGenerator[Progress]) -> list[Progress]:
    try:
        return [made async for made in stream]
    finally:
        await stream.aclose()
