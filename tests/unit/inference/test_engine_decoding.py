"""What the VAE's thread does with what waits for it: batches, order, previews, failures. The VAE is played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, get_ident
from typing import Any

import pytest
import torch
from torch import Tensor

from terroir.inference.engine.decoding import MAX_PICTURES, Denoised, Encoded, VaeWorker
from terroir.inference.engine.messages import (
    DrawJob,
    Drawn,
    Failed,
    Finished,
    JobEvent,
    Previewed,
    Raster,
    Start,
)
from tests.unit.inference.drawing_kit import make_job

BLACK = Raster(8, 8, bytes(192))


class PlayedVae:
    """Remembers its calls; fails where it is told to; latents that are no number make no picture."""

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.threads: set[int] = set()
        self.fails: Callable[[Tensor], Exception | None] = lambda latents: None

    def decode(self, latents: Tensor) -> Sequence[Raster | None]:
        self.threads.add(get_ident())
        self.decoded.append(len(latents))
        if error := self.fails(latents):
            raise error
        return [BLACK if torch.isfinite(picture).all() else None for picture in latents]

    def encode_picture(self, raster: Raster, generators: Sequence[torch.Generator]) -> Tensor:
        latents = torch.zeros(len(generators), 4, 1, 1)
        if error := self.fails(latents):
            raise error
        return latents


class Desk:
    """A worker and what came out of it."""

    def __init__(self, on_event: Callable[[JobEvent], None] = lambda event: None) -> None:
        self.vae, self.events = PlayedVae(), list[JobEvent]()
        self.encoded: list[tuple[str, Encoded | None]] = []
        self.previewed: list[float] = []
        self.rested: list[list[str]] = []
        """Jobs that had ended, each time that it said so."""

        def emit(event: JobEvent) -> None:
            self.events.append(event)
            on_event(event)

        def preview(latents: Tensor) -> Sequence[Raster]:
            self.previewed.append(float(latents.mean()))
            if error := self.vae.fails(latents):
                raise error
            return [BLACK] * len(latents)

        self.worker = VaeWorker(
            self.vae, emit, lambda job, encoded: self.encoded.append((job.id, encoded)), preview=preview,
            used_bytes=lambda: 5,
            on_rest=lambda: self.rested.append([event.id for event in self.of(Finished | Failed)]),
        )  # fmt: skip

    def finish(self, job_id: str, *, pictures: int = 1, side: int = 2, value: float = 0.0, **fields: Any) -> None:
        job = make_job(job_id, seeds=tuple(range(pictures)), **fields)
        self.worker.finish(Denoised(job, torch.full((pictures, 4, side, side), value), 0.0, []))

    def of(self, kind: Any) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def from_picture(job_id: str) -> DrawJob:
    return make_job(job_id, start=Start(BLACK, 0.5))


def test_what_waits_of_one_shape_is_decoded_in_one_call() -> None:
    desk = Desk()
    for number in range(5):
        desk.finish(f"job-{number}")
    desk.worker.work_off()
    assert desk.vae.decoded == [5]
    assert [event.id for event in desk.of(Finished)] == [f"job-{number}" for number in range(5)]


def test_a_call_has_bounded_pictures_and_one_shape_and_nobody_is_forgotten() -> None:
    desk = Desk()
    desk.finish("large", pictures=MAX_PICTURES * 2 + 1)
    desk.finish("other-shape", side=3)
    desk.finish("a", pictures=MAX_PICTURES - 1)
    desk.finish("b", pictures=2)
    desk.worker.work_off()
    assert max(desk.vae.decoded) <= MAX_PICTURES
    assert sum(desk.vae.decoded) == MAX_PICTURES * 2 + 1 + 1 + MAX_PICTURES - 1 + 2
    assert [event.id for event in desk.of(Finished)] == ["large", "other-shape", "a", "b"]
    assert [event.index for event in desk.of(Drawn) if event.id == "large"] == list(range(MAX_PICTURES * 2 + 1))


def test_every_picture_of_a_job_comes_before_it_is_finished() -> None:
    desk = Desk()
    desk.finish("a", pictures=3)
    desk.worker.work_off()
    assert [type(event) for event in desk.events] == [Drawn, Drawn, Drawn, Finished]


def test_pictures_go_before_previews() -> None:
    desk = Desk()
    desk.worker.preview(make_job("running"), 1, torch.zeros(1, 4, 2, 2))
    desk.finish("done")
    desk.worker.work_off()
    assert [type(event) for event in desk.events] == [Drawn, Finished, Previewed]


def test_a_late_preview_is_replaced_by_the_next_of_its_job() -> None:
    desk = Desk()
    for step in range(1, 6):
        desk.worker.preview(make_job("slow"), step, torch.full((1, 4, 2, 2), float(step)))
    desk.worker.preview(make_job("other"), 1, torch.zeros(1, 4, 2, 2))
    desk.worker.work_off()
    assert [(event.id, event.step) for event in desk.of(Previewed)] == [("slow", 5), ("other", 1)]
    assert desk.previewed == [5.0, 0.0]


def test_a_preview_that_waits_when_the_picture_is_done_is_dropped() -> None:
    desk = Desk()
    desk.worker.preview(make_job("a"), 1, torch.zeros(1, 4, 2, 2))
    desk.finish("a")
    desk.worker.work_off()
    assert not desk.of(Previewed) and not desk.previewed


def test_a_cancelled_job_is_not_decoded_shown_or_encoded() -> None:
    desk = Desk()
    desk.finish("a")
    desk.finish("b")
    desk.worker.preview(make_job("c"), 1, torch.zeros(1, 4, 2, 2))
    desk.worker.encode(from_picture("d"))
    for job_id in ("a", "c", "d", "unknown"):
        desk.worker.cancel(job_id)
    desk.worker.work_off()
    assert {event.id for event in desk.events} == {"b"}
    assert desk.vae.decoded == [1] and not desk.encoded


def test_a_job_whose_deadline_passed_while_it_waited_is_not_decoded() -> None:
    desk = Desk()
    desk.finish("late", deadline=0.0)
    desk.finish("timely")
    desk.worker.work_off()
    assert [(event.id, event.reason) for event in desk.of(Failed)] == [("late", "DEADLINE_EXCEEDED")]
    assert [event.id for event in desk.of(Finished)] == ["timely"]
    assert desk.vae.decoded == [1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("pretended"), "DEVICE_MEMORY_FULL"),
        (MemoryError(), "DEVICE_MEMORY_FULL"),
        (RuntimeError("pretended"), "DRAWING_FAILED"),
    ],
)
def test_a_batch_that_fails_is_repeated_so_that_only_the_culprit_fails(error: Exception, reason: str) -> None:
    desk = Desk()
    desk.vae.fails = lambda latents: error if (latents == 1).any() else None
    desk.finish("spared")
    desk.finish("hit", value=1.0)
    desk.finish("spared too")
    desk.worker.work_off()
    assert [(event.id, event.reason) for event in desk.of(Failed)] == [("hit", reason)]
    assert [event.id for event in desk.of(Finished)] == ["spared", "spared too"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_a_number_fails_its_job_alone(value: float) -> None:
    desk = Desk()
    desk.finish("wild", value=value)
    desk.finish("tame")
    desk.worker.work_off()
    assert [(event.id, event.reason) for event in desk.of(Failed)] == [("wild", "PICTURE_NOT_FINITE")]
    assert {event.id for event in desk.of(Drawn)} == {"tame"}


def test_a_preview_that_fails_costs_no_picture_and_is_said_with_it() -> None:
    desk = Desk()
    desk.vae.fails = lambda latents: RuntimeError("pretended")
    desk.worker.preview(make_job("a"), 1, torch.zeros(1, 4, 2, 2))
    desk.worker.work_off()
    desk.vae.fails = lambda latents: None
    desk.finish("a")
    desk.finish("b")
    desk.worker.work_off()
    assert not desk.of(Failed)
    assert [event.warnings for event in desk.of(Finished)] == [("previews were left out: RuntimeError",), ()]


def test_a_picture_to_start_from_is_handed_back_with_its_job() -> None:
    desk = Desk()
    desk.worker.encode(from_picture("a"))
    desk.worker.work_off()
    ((job_id, encoded),) = desk.encoded
    assert job_id == "a" and encoded is not None and len(encoded.latents) == len(encoded.generators) == 1


def test_a_picture_that_can_not_be_encoded_fails_its_job_and_lets_it_go() -> None:
    desk = Desk()
    desk.vae.fails = lambda latents: MemoryError()
    desk.worker.encode(from_picture("a"))
    desk.worker.work_off()
    assert [(event.id, event.reason) for event in desk.of(Failed)] == [("a", "DEVICE_MEMORY_FULL")]
    assert desk.encoded == [("a", None)]


def test_what_nobody_waits_for_is_decoded_last_and_job_by_job() -> None:
    desk = Desk()
    for number in range(3):
        desk.finish(f"spare-{number}", spare=True)
    desk.worker.encode(make_job("spare-source", start=Start(BLACK, 0.5), spare=True))
    desk.finish("awaited")
    desk.worker.encode(from_picture("source"))
    desk.worker.preview(make_job("running"), 1, torch.zeros(1, 4, 2, 2))
    desk.finish("awaited too")
    desk.worker.work_off()
    order = [event.id for event in desk.events if isinstance(event, Finished | Previewed)]
    assert order == ["awaited", "awaited too", "running", "spare-0", "spare-1", "spare-2"]
    assert desk.vae.decoded == [2, 1, 1, 1], "whoever comes waits for one picture of theirs at most"
    assert [job_id for job_id, _ in desk.encoded] == ["source", "spare-source"]


@pytest.mark.parametrize("late", [False, True])
def test_it_says_when_all_is_done_that_somebody_waits_for(late: bool) -> None:
    desk = Desk()
    desk.finish("spare", spare=True)
    assert not desk.worker.attended
    desk.finish("awaited", deadline=0.0 if late else None)
    desk.worker.encode(from_picture("source"))
    assert desk.worker.attended
    desk.worker.work_off()
    assert not desk.worker.attended
    assert desk.rested == [["awaited"]], "once, before what nobody waits for"


def test_what_is_cancelled_is_not_waited_for() -> None:
    desk = Desk()
    desk.finish("awaited")
    desk.worker.cancel("awaited")
    assert not desk.worker.attended


def test_work_handed_in_is_done_on_a_thread_of_its_own() -> None:
    done = Event()
    desk = Desk(lambda event: done.set() if isinstance(event, Finished) else None)
    desk.worker.start(1)
    desk.finish("a")
    assert done.wait(20)
    assert desk.vae.threads and get_ident() not in desk.vae.threads
