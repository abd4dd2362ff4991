"""What a driver writes at its end: what is tried again is the infrastructure's fault, everything else is final."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import pytest
from ray.exceptions import OutOfMemoryError as RayOutOfMemory
from ray.exceptions import WorkerCrashedError

from terroir.common.clock import FixedClock
from terroir.common.errors import Unavailable
from terroir.store.errors import CorruptBlob, StoreUnavailable
from terroir.store.obstore_driver import MemoryStore
from terroir.training.attempt.driver import Driver
from terroir.training.attempt.order import DriverOrder
from terroir.training.engine.ports import Stopped
from terroir.training.errors import ConfigInvalid, NonFiniteLoss, OutOfMemory
from terroir.training.jobs.attempts import Attempt, Outcome
from terroir.training.jobs.documents import Job, Jobs, JobState

AGAIN = 1


class Bench:
    """A job whose first attempt runs, and its driver."""

    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), FixedClock()
        self.jobs = Jobs(self.store, self.clock)
        self.id = self.jobs.create("r", adapter="a", base="b", dataset_version="d", config_yaml="").id
        attempt = Attempt(1, f"{self.id}-1", "ray", since="2026-01-01T00:00:00.000+00:00")
        self.jobs.change(self.id, "run", lambda j: replace(j, state=JobState.RUNNING, dispatched=True, attempt=attempt))

    def drive(self, train: Callable[[], NoReturn]) -> int:
        """Exit status of a driver whose worker does that."""
        order = DriverOrder(self.id, 1, f"{self.id}-1", "/data", "", "", "", "d", "r", {}, 1, 0.0)
        return Driver(order, self.store, self.clock, train).run()

    @property
    def job(self) -> Job:
        return self.jobs.get(self.id)


def raises(error: Exception) -> Callable[[], NoReturn]:
    def train() -> NoReturn:
        raise error

    return train


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_run_that_stopped_to_make_room_is_queued_again_and_not_held_against_it(bench: Bench) -> None:
    bench.jobs.ask_to_make_room(bench.id, 1, "job-urgent")
    assert bench.drive(raises(Stopped(7))) == 0
    job = bench.job
    assert (job.state, job.dispatched, job.preempt_for, job.lost_attempts) == (JobState.QUEUED, False, "", 0)
    (past,) = job.history
    assert past.outcome is Outcome.PREEMPTED and past.why == "made room for jobs/job-urgent at step 7"


def test_a_cancel_wins_over_room_that_shall_be_made(bench: Bench) -> None:
    bench.jobs.ask_to_make_room(bench.id, 1, "job-urgent")
    bench.jobs.request_cancel(bench.id)
    assert bench.drive(raises(Stopped(7))) == 0
    assert bench.job.state is JobState.CANCELLED and bench.job.history[-1].outcome is Outcome.CANCELLED


@pytest.mark.parametrize(
    "error",
    [WorkerCrashedError(), Unavailable("no answer"), StoreUnavailable("no answer", "key")],
    ids=lambda error: type(error).__name__,
)
def test_faults_of_the_infrastructure_leave_the_job_to_the_next_attempt(bench: Bench, error: Exception) -> None:
    assert bench.drive(raises(error)) == AGAIN
    assert not bench.job.ended and bench.job.dispatched


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigInvalid("rank 0"), "CONFIG_VALUE"), (NonFiniteLoss("nan"), "NON_FINITE_LOSS"),
        (OutOfMemory("lower batch_size"), "OUT_OF_MEMORY"), (RayOutOfMemory("the node was full"), "OUT_OF_MEMORY"),
        (CorruptBlob("not what was written", "blobs/x"), "STORE_BLOB_CORRUPT"), (ValueError("x"), "TRAINING_FAILED"),
    ],
    ids=["configuration", "not finite", "out of memory", "ended by Ray for memory", "damaged blob", "unforeseen"],
)  # fmt: skip
def test_what_would_fail_again_is_final(bench: Bench, error: Exception, reason: str) -> None:
    assert bench.drive(raises(error)) == 0
    job = bench.job
    assert job.state is JobState.FAILED and job.failure is not None and job.failure.reason == reason
    assert job.history[-1].outcome is Outcome.FAILED and reason in job.history[-1].why
