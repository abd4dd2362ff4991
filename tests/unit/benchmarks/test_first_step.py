"""The first step counts from the first word of it, and a job that fails is no figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from benchmarks.training.first_step import FirstStep, JobFailed, told
from terroir._proto.training.v1 import training_pb2 as pb

QUEUED, RUNNING, SUCCEEDED, FAILED = (
    pb.JOB_STATE_QUEUED, pb.JOB_STATE_RUNNING, pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED,
)  # fmt: skip


def job(state: pb.JobState, step: int = 0, error: str = "") -> pb.Job:
    return pb.Job(name="jobs/a", state=state, progress=pb.Progress(step=step), error=pb.JobError(message=error))


def seconds() -> Callable[[], float]:
    """A second for each time that somebody looks."""
    clock: Iterator[float] = iter(float(second) for second in range(1, 100))
    return lambda: next(clock)


def test_the_first_word_of_a_state_and_of_a_step_counts() -> None:
    changes = [job(QUEUED), job(RUNNING), job(RUNNING, 2), job(RUNNING, 5), job(SUCCEEDED, 8)]
    assert told(iter(changes), 0.0, seconds()) == FirstStep(running=1.0, stepped=2.0)


def test_a_job_that_was_never_seen_running_ran_when_it_stepped() -> None:
    assert told(iter([job(QUEUED), job(SUCCEEDED, 8)]), 0.0, seconds()) == FirstStep(1.0, 1.0)


@pytest.mark.parametrize(
    ("last", "message"), [(job(FAILED, 3, "memory ran out"), "FAILED: memory ran out"), (job(SUCCEEDED), "no step")]
)
def test_a_job_that_fails_or_steps_without_a_word_is_no_figure(last: pb.Job, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        told(iter([job(RUNNING), last]), 0.0, seconds())
