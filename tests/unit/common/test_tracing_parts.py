"""Parts of a request and of a job as spans: what their ends look like, and what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from terroir.common.clock import FixedClock
from terroir.common.errors import FailedPrecondition, NotFound, Unavailable
from terroir.common.otel import Tracing
from terroir.common.tracing import current_traceparent, fail_current, following, record, span, tracing_on, use_tracing
from terroir.inference.drawing_spans import DrawingSpans
from terroir.inference.engine.messages import DrawJob, Drawn, Finished, JobEvent, Raster, Start, Stepped, TickCost
from terroir.lora.composition import Composition
from terroir.store.documents import Collection
from terroir.store.obstore_driver import MemoryStore
from terroir.training.attempt.driver import Driver
from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_runtime import TracedRay
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import PREFIX, Job, Jobs, JobState

OUTER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = OUTER.split("-")[1]


class Memory:
    """Keeps spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self)

    def close(self) -> None:
        self.provider.shutdown()

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {made.name: made for made in self.exporter.get_finished_spans()}

    def told(self, name: str) -> dict[str, Any]:
        return {key.removeprefix("terroir."): value for key, value in (self.spans[name].attributes or {}).items()}

    def failed(self, name: str) -> str | None:
        status = self.spans[name].status
        return None if status.is_ok or status.is_unset else status.description


@pytest.fixture
def memory() -> Iterator[Memory]:
    kept = Memory()
    use_tracing(kept.tracing)
    yield kept
    use_tracing(None)


def test_parts_nest_and_end_with_what_leaves_them(memory: Memory) -> None:
    with pytest.raises(NotFound), span("whole"), span("part", digest="d") as part:
        part.set(tier="disk")
        raise NotFound("adapters/a-prompt-may-be-here", reason="ADAPTER_NOT_FOUND")
    assert memory.spans["part"].parent == memory.spans["whole"].context
    assert memory.told("part") == {"digest": "d", "tier": "disk", "error.type": "ADAPTER_NOT_FOUND"}
    assert memory.failed("whole") == memory.failed("part") == "ADAPTER_NOT_FOUND"
    assert not any(made.events for made in memory.spans.values()), "exceptions, with their texts, are no events"
    assert current_traceparent() == ""


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
def test_what_is_given_up_is_cancelled_and_not_failed(memory: Memory, error: BaseException) -> None:
    with pytest.raises(type(error)), span("part"):
        raise error
    assert memory.failed("part") is None
    assert memory.told("part") == {"cancelled": True}


def test_a_part_that_is_over_never_begins_before_its_whole(memory: Memory) -> None:
    with span("whole"):
        record("part", 0.0, 1.0, failed="TOO_LATE")
    whole, part = memory.spans["whole"], memory.spans["part"]
    assert part.parent == whole.context
    assert whole.start_time == part.start_time == part.end_time
    assert memory.failed("part") == "TOO_LATE"


def test_tracing_is_that_of_the_context(memory: Memory) -> None:
    other = Memory()
    with following(other.tracing, OUTER, "elsewhere", "internal"):
        with span("its part"):
            assert current_traceparent().split("-")[1] == TRACE
        fail_current("LATE")
    with span("here again"):
        pass
    assert set(other.spans) == {"elsewhere", "its part"}
    assert other.failed("elsewhere") == "LATE"
    assert set(memory.spans) == {"here again"}


def job(seeds: tuple[int, ...] = (1, 2)) -> DrawJob:
    return DrawJob(
        id="j", prompt="a prompt", negative_prompt="", composition=Composition.of([]), width=64, height=32, steps=3,
        guidance_scale=3.0, sampler="ddim", seeds=seeds, start=Start(), preview_interval_steps=0, deadline=None,
    )  # fmt: skip


def drawing(events: list[JobEvent], error: BaseException | None = None) -> None:
    clock = FixedClock()

    async def read() -> None:
        async with DrawingSpans(job(), clock.monotonic(), clock) as spans:
            for event in events:
                clock.advance(0.5)
                spans.take(event)
            if error is not None:
                raise error

    if error is None:
        asyncio.run(read())
    else:
        with pytest.raises(type(error)):
            asyncio.run(read())


def step(number: int, rows: int = 4) -> Stepped:
    return Stepped("j", number, 3, TickCost(2048, rows, 0.25), "slots")


PICTURES: list[JobEvent] = [Drawn("j", index, Raster(1, 1, b"abc")) for index in (0, 1)]
FINISHED = Finished("j", 1.0, (), 0)


def test_a_drawing_is_three_spans_whatever_the_number_of_steps(memory: Memory) -> None:
    drawing([step(1), step(2, rows=8), step(3), *PICTURES, FINISHED])
    assert list(memory.spans) == ["prepare drawing", "denoise", "decode"]
    assert memory.told("denoise") == {
        "steps": 3, "total_steps": 3, "sampler": "ddim", "width": 64, "height": 32, "pictures": 2, "adapters": 0,
        "plan": "slots", "compute_seconds": 0.75, "batch_rows_most": 8, "batch_rows_mean": 16 / 3,
    }  # fmt: skip


def test_a_drawing_that_fails_or_is_given_up_is_told_as_far_as_it_came(memory: Memory) -> None:
    drawing([], FailedPrecondition("texts of a caller", reason="PROMPT_TOO_LONG"))
    assert list(memory.spans) == ["prepare drawing"]
    assert memory.failed("prepare drawing") == "PROMPT_TOO_LONG"
    memory.exporter.clear()
    drawing([step(1), step(2)], Unavailable("restarted", reason="ENGINE_RESTARTED"))
    assert list(memory.spans) == ["prepare drawing", "denoise"]
    assert (memory.failed("denoise"), memory.told("denoise")["steps"]) == ("ENGINE_RESTARTED", 2)
    memory.exporter.clear()
    drawing([step(1)], asyncio.CancelledError())
    assert (memory.failed("denoise"), memory.told("denoise")["steps"]) == (None, 1)
    memory.exporter.clear()
    drawing([step(1), step(2), step(3)], asyncio.CancelledError())
    assert memory.told("decode") == {"cancelled": True}
    memory.exporter.clear()
    drawing([step(1), step(2), step(3), PICTURES[0]], FailedPrecondition("no", reason="PICTURE_REFUSED"))
    assert [memory.failed(name) for name in memory.spans] == [None, None, None], "the engine did its part"


def test_a_drawing_that_nobody_traces_keeps_nothing() -> None:
    assert not tracing_on()
    clock = FixedClock()
    spans = DrawingSpans(job(), clock.monotonic(), clock)
    spans.take(step(1))
    assert spans._ticks == []


class Ray:
    """Takes orders."""

    def __init__(self) -> None:
        self.orders: list[DriverOrder] = []
        self.session = self.look = self.close = lambda *_: None  # type: ignore[assignment]
        self.stop_submission = self.nodes = self.session

    def submit(self, order: DriverOrder) -> None:
        self.orders.append(order)


def order(traceparent: str = "") -> DriverOrder:
    return DriverOrder("job-1", 1, "job-1-1", "/data", "", "", "", "d", "r", {}, 1, 0.0, "", traceparent)


def test_a_driver_goes_on_from_the_dispatch_which_goes_on_from_the_creation(memory: Memory) -> None:
    ray = Ray()
    TracedRay(ray, memory.tracing).submit(order(OUTER))  # type: ignore[arg-type]
    dispatched = memory.spans["dispatch attempt"]
    assert dispatched.context is not None
    assert dispatched.parent is not None
    assert f"{dispatched.parent.span_id:016x}" == OUTER.split("-")[2]
    assert ray.orders[0].traceparent == f"00-{TRACE}-{dispatched.context.span_id:016x}-01"
    TracedRay(ray, memory.tracing).submit(order())  # type: ignore[arg-type]
    assert ray.orders[1] == order(), "a job that was created without a trace gets none"


def test_a_job_keeps_the_trace_of_its_creation_and_older_ones_have_none(memory: Memory) -> None:
    store, clock = MemoryStore(), FixedClock()
    jobs = Jobs(store, clock)
    asked: dict[str, Any] = {"adapter": "a", "base": "b", "dataset_version": "d", "config_yaml": ""}
    made = jobs.create("r", **asked, traceparent=OUTER)
    assert jobs.get(made.id).traceparent == OUTER
    assert jobs.create("r", **asked, traceparent="another call's") == made, "a repeated call makes no second job"
    body = asdict(made)
    for name in ("etag", "traceparent"):
        del body[name]
    Collection(store, PREFIX, clock).sequence("job-old").append_with(
        lambda _: body | {"id": "job-old"}, op_id="x", request={}
    )
    assert jobs.get("job-old").traceparent == ""
    assert jobs.request_cancel("job-old").state is JobState.CANCELLED


def drive(train: Callable[[], Any], memory: Memory) -> int:
    """A driver's run within its span."""
    store, clock = MemoryStore(), FixedClock()
    jobs = Jobs(store, clock)
    made = jobs.create("r", adapter="a", base="b", dataset_version="d", config_yaml="")
    jobs.change(made.id, "dispatch", lambda head: Job(**{**head.__dict__, "attempt": Attempt(1, "s", "ray")}))
    told = DriverOrder(made.id, 1, "s", "/data", "", "", "", "d", "r", {}, 1, 0.0)
    with following(memory.tracing, OUTER, "drive attempt", "consumer"):
        return Driver(told, store, clock, train).run()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (FailedPrecondition("x", reason="NON_FINITE_LOSS"), 0, "NON_FINITE_LOSS"),
        (Unavailable("x", reason="SERVICE_UNREACHABLE"), 1, "SERVICE_UNREACHABLE"),
        (ValueError("x"), 0, "TRAINING_FAILED"),
    ],
)
def test_an_attempt_that_fails_or_is_lost_is_a_failed_span(
    memory: Memory, error: Exception, status: int, reason: str
) -> None:
    def train() -> Any:
        raise error

    assert drive(train, memory) == status
    assert memory.failed("drive attempt") == reason
