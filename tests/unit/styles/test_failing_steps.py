"""What a registration does when a step fails: an error that passes is waited out, any other ends it by its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from styles_kit import REQUEST, Room

from terroir.common.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    PermissionDenied,
    ResourceExhausted,
    TerroirError,
    Unavailable,
)
from terroir.store.errors import CorruptObject, StoreUnavailable
from terroir.training.jobs.documents import JobState
from terroir.training.styles.live import Live, read_live
from terroir.training.styles.model import Failure, Phase, Registration, State

ASSIGNING = replace(REQUEST, assign_region=True)
STEPS = [
    (Phase.IMPORTING, "datasets", "usable"),
    (Phase.CAPTIONING, "datasets", "caption"),
    (Phase.FREEZING, "datasets", "freeze"),
    (Phase.QUEUED, "datasets", "version"),
    (Phase.QUEUED, "shelf", "base_digest"),
    (Phase.STAGING, "shelf", "metrics"),
    (Phase.STAGING, "shelf", "set_alias"),
    (Phase.STAGING, "shelf", "assign"),
]
PASSING: list[Exception] = [
    Unavailable("no answer from the service", reason="SERVICE_UNREACHABLE"),
    Aborted("somebody else changed it", reason="REGION_ETAG_MISMATCH"),
    DeadlineExceeded("took too long"),
    ResourceExhausted("too many streams", reason="IMPORTS_EXHAUSTED"),
    StoreUnavailable("the bucket is away", "k", "STORE_UNREACHABLE"),
]
FINAL: list[Exception] = [
    FailedPrecondition("no captions", reason="CAPTIONS_MISSING"),
    PermissionDenied("cert:terroir-training may not", reason="ROLE_MISSING"),
    CorruptObject("damaged", "k"),
]


def broken(room: Room, where: str, method: str, error: Exception) -> Callable[[], None]:
    """Break a method of another service; the answer mends it."""
    house = getattr(room, where)
    sound = getattr(house, method)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise error

    setattr(house, method, fails)
    return lambda: setattr(house, method, sound)


def run(room: Room, registration: Registration) -> Registration:
    for _ in range(3):
        if not room.replica().run(registration):
            break
        room.work()
    return room.seen(registration)


@pytest.mark.parametrize("error", PASSING, ids=lambda error: error.reason)
@pytest.mark.parametrize(("phase", "where", "method"), STEPS, ids=lambda value: str(value))
def test_an_error_that_passes_is_waited_out(phase: Phase, where: str, method: str, error: Exception) -> None:
    room = Room()
    registration = room.begin(ASSIGNING)
    mend = broken(room, where, method, error)
    waiting = run(room, registration)
    assert (waiting.state, waiting.phase) == (State.RUNNING, phase)
    assert str(error) in read_live(room.store, waiting).waiting_for
    mend()
    assert room.finish(registration).state is State.SUCCEEDED


@pytest.mark.parametrize("error", FINAL, ids=lambda error: error.reason)
@pytest.mark.parametrize(("phase", "where", "method"), STEPS, ids=lambda value: str(value))
def test_any_other_error_ends_it_with_the_reason_of_the_step(
    phase: Phase, where: str, method: str, error: TerroirError
) -> None:
    room = Room()
    registration = room.begin(ASSIGNING)
    mend = broken(room, where, method, error)
    failed = run(room, registration)
    assert (failed.state, failed.phase) == (State.FAILED, phase)
    assert failed.failure is not None and failed.failure.reason == error.reason
    assert failed.failure.message.startswith(f"{phase}: {error}")
    assert failed.ended_at and room.shelf.recipes == {}
    mend()
    again = room.begin(replace(ASSIGNING, new_version=bool(failed.adapter_version)), "again")
    assert room.finish(again).state is State.SUCCEEDED, "the name is free again, and what stayed is taken up"


def test_a_defect_ends_it_too_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    registration = room.begin()
    broken(room, "datasets", "freeze", KeyError("surprise"))
    failed = run(room, registration)
    assert failed.failure is not None and failed.failure.reason == "REGISTRATION_FAILED"
    assert "KeyError" in failed.failure.message


def test_pictures_that_are_all_kept_out_end_it_and_the_gates_are_named() -> None:
    room = Room()
    room.datasets.kept_out = {"BLUR": 2, "MINIMUM_SIDE": 1}
    failed = run(room, room.begin())
    assert failed.failure is not None and failed.failure.reason == "DATASET_EMPTY"
    assert "none of the 3 pictures" in failed.failure.message
    assert "2 by BLUR, 1 by MINIMUM_SIDE" in failed.failure.message
    assert "terroir dataset images ink-pictures" in failed.failure.message


def test_a_failed_job_gives_its_own_reason() -> None:
    room = Room()
    registration = room.begin()
    room.replica().run(registration)
    (job,) = room.work(JobState.FAILED)
    room.replica().run(registration)
    failed = room.seen(registration)
    expected = f"queued: {job.name} failed: the loss was not finite; lower learning_rate"
    assert failed.failure is not None and failed.failure.reason == "NON_FINITE_LOSS"
    assert failed.failure.message.startswith(expected)
    assert room.shelf.aliases == {}, "nothing is staged"


def test_a_job_that_somebody_cancels_by_itself_cancels_the_registration() -> None:
    room = Room()
    registration = room.begin()
    room.replica().run(registration)
    room.jobs.request_cancel(room.seen(registration).job)
    room.replica().run(registration)
    assert room.seen(registration).state is State.CANCELLED


def test_a_job_that_publishes_nothing_is_no_success() -> None:
    room = Room()
    registration = room.begin()
    room.replica().run(registration)
    room.jobs.end(room.seen(registration).job, "end/1", JobState.SUCCEEDED)
    room.replica().run(registration)
    failed = room.seen(registration)
    assert failed.failure is not None and failed.failure.reason == "NOTHING_PUBLISHED"


def test_a_registry_replica_that_lags_is_waited_for_and_no_longer_than_it_may_lag() -> None:
    room = Room()
    registration = room.begin()
    room.replica().run(registration)
    room.work()
    room.shelf.adapters = {}
    room.replica().run(registration)
    assert (room.seen(registration).state, room.seen(registration).phase) == (State.RUNNING, Phase.STAGING)
    room.clock.advance(11)
    room.replica().run(registration)
    failed = room.seen(registration)
    assert failed.failure == Failure(
        "VERSION_NOT_FOUND",
        "staging: adapters/ink/versions/1 does not exist (adapters/ink/versions/1 is published; once that is mended: "
        "terroir adapter alias ink staging 1 --reason WHY)",
    )


def test_what_it_waits_for_is_forgotten_when_it_works_again() -> None:
    room = Room()
    registration = room.begin()
    process = room.replica()
    mend = broken(room, "datasets", "freeze", PASSING[0])
    process.run(registration)
    assert read_live(room.store, registration).waiting_for
    mend()
    process.run(registration)
    assert read_live(room.store, registration) == Live()
