"""A driver that waits for its workers: a stop before any of them began is heard by nobody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event

import pytest

from terroir.common.clock import FixedClock
from terroir.common.credentials import CallerCredentials
from terroir.store.obstore_driver import MemoryStore
from terroir.training.attempt import on_ray
from terroir.training.attempt.on_ray import unless_stopped
from terroir.training.attempt.order import DriverOrder
from terroir.training.attempt.worker import train_attempt
from terroir.training.engine.ports import Stopped
from terroir.training.errors import AttemptSuperseded, WorkerLost
from terroir.training.jobs.attempts import Attempt, Outcome
from terroir.training.jobs.documents import Job, Jobs, JobState

STOPS: dict[str, Callable[[Jobs, str], object]] = {
    "cancel": lambda jobs, job_id: jobs.request_cancel(job_id),
    "make room": lambda jobs, job_id: jobs.ask_to_make_room(job_id, 1, "job-urgent"),
}


class Looked(Jobs):
    """Lets a group end once its job was looked at so often."""

    def __init__(self, may_end: Event) -> None:
        self.store = MemoryStore()
        super().__init__(self.store, FixedClock())
        self.looks_left = 1_000_000
        self.may_end = may_end

    def get(self, job_id: str) -> Job:
        self.looks_left -= 1
        if self.looks_left == 0:
            self.may_end.set()
        return super().get(job_id)


class Group:
    """A driver, and a group that ends when it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_ray, "_ASK_SECONDS", 0.001)
        self.may_end = Event()
        self.jobs = Looked(self.may_end)
        job = self.jobs.create("r", adapter="a", base="b", dataset_version="d", config_yaml="")
        self.id = job.id
        attempt = Attempt(1, f"{job.id}-1", "ray")
        self.jobs.change(job.id, "dispatch/1", lambda job: replace(job, dispatched=True, attempt=attempt))
        self.order = DriverOrder(job.id, 1, f"{job.id}-1", "/data", "", "", "", "d", "r", {}, 1, 0.0)

    def fit(self) -> str:
        assert self.may_end.wait(30)
        return "trained"

    def run(self, fit: Callable[[], str] | None = None) -> str:
        return unless_stopped(fit or self.fit, self.order, self.jobs)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    return Group(monkeypatch)


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_stop_while_the_group_starts_is_heard_at_once(group: Group, stop: Callable[[Jobs, str], object]) -> None:
    """It took the 30 s after which the queue has Ray end the driver."""
    stop(group.jobs, group.id)
    with pytest.raises(Stopped):
        group.run()
    assert not group.may_end.is_set()
    group.may_end.set()


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_stop_after_a_worker_began_is_the_workers_to_hear(group: Group, stop: Callable[[Jobs, str], object]) -> None:
    """They save a checkpoint first."""
    group.jobs.change(group.id, "running/1", lambda job: replace(job, state=JobState.RUNNING))
    stop(group.jobs, group.id)
    group.jobs.looks_left = 3
    assert group.run() == "trained"
    assert group.jobs.looks_left <= 0


def test_a_worker_that_comes_up_after_its_attempt_was_ended_changes_nothing(group: Group) -> None:
    """It said that a job runs which waits in the queue again."""
    before = group.jobs.requeue(group.id, "preempted/1", 1, Outcome.PREEMPTED, "made room")
    with pytest.raises(AttemptSuperseded):
        train_attempt(group.order, group.jobs.store, CallerCredentials(), lambda: "node", FixedClock())
    assert group.jobs.get(group.id) == before and before.state is JobState.QUEUED


def test_what_the_group_raises_is_raised(group: Group) -> None:
    def fails() -> str:
        raise WorkerLost("gone")

    with pytest.raises(WorkerLost, match="gone"):
        group.run(fails)
