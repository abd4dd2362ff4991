"""The queue against a Ray in memory: dispatch, loss, retry, cancel, restart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from terroir.common.clock import FixedClock
from terroir.store.errors import OperationConflict
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_jobs import Submission, SubmissionStatus
from terroir.training.cluster.ray_runtime import entrypoint
from terroir.training.engine.ports import Checkpoint
from terroir.training.errors import AttemptSuperseded, JobNotFound
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import Job, JobFailure, Jobs, JobState, ensure_current
from terroir.training.jobs.queue import Queue
from terroir.training.jobs.queue_plan import QueueLimits
from terroir.training.scheduling.model import Capacity, Node, Rules
from terroir.training.scheduling.wishes import PLAIN, Wish

TWO = QueueLimits(Capacity(2), rules=Rules(min_run_seconds=0), max_retries=1, retry_backoff_seconds=0)
"""At most two jobs at once; one retry, without a pause."""


@dataclass
class MemoryRay:
    """Knows what was submitted; tests decide what becomes of it."""

    current: str = "ray-1"
    submissions: dict[str, SubmissionStatus] = field(default_factory=dict)
    orders: list[DriverOrder] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    up: tuple[Node, ...] = ()

    def session(self) -> str:
        return self.current

    def submit(self, order: DriverOrder) -> None:
        self.orders.append(order)
        self.submissions[order.submission_id] = SubmissionStatus.RUNNING

    def look(self, attempt: Attempt) -> Submission | None:
        status = self.submissions.get(attempt.submission_id) if attempt.ray_session == self.current else None
        return Submission(status, "the worker died") if status else None

    def stop_submission(self, attempt: Attempt) -> None:
        self.stopped.append(attempt.submission_id)
        self.submissions[attempt.submission_id] = SubmissionStatus.STOPPED

    def nodes(self) -> tuple[Node, ...]:
        return self.up

    def close(self) -> None:
        pass


def order(job: Job, attempt: Attempt) -> DriverOrder:
    return DriverOrder(job.id, attempt.number, attempt.submission_id, "/data", "", "", "", "d", "r", {}, 1, 0.0)


@dataclass
class House:
    """Everything around one queue; `restart` makes a new queue over the same store."""

    store: ObjectStore = field(default_factory=MemoryStore)
    clock: FixedClock = field(default_factory=FixedClock)
    ray: MemoryRay = field(default_factory=MemoryRay)
    limits: QueueLimits = TWO

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.store, self.clock)
        self.restart()

    def restart(self) -> None:
        self.queue = self.replica()

    def replica(self) -> Queue:
        """A process of its own over the same store and Ray."""
        return Queue(Jobs(self.store, self.clock), self.ray, order, self.limits, self.clock)

    def create(self, request: str, wish: Wish = PLAIN) -> Job:
        self.clock.advance(1)
        job = self.jobs.create(
            request, adapter="a", base="b", dataset_version="datasets/d/versions/1", config_yaml="", wish=wish
        )
        self.queue.added(job.id)
        return job

    def run(self, job: Job, attempt: int) -> None:
        """What a worker writes first."""
        self.jobs.change(
            job.id,
            f"running/{attempt}",
            lambda j: replace(j, state=JobState.RUNNING, attempt=replace(j.attempt, worker_pid=7)) if j.attempt else j,
        )


@pytest.fixture
def house() -> House:
    return House()


def test_jobs_go_to_ray_in_order_of_creation_and_up_to_capacity(house: House) -> None:
    jobs = [house.create(f"r{i}") for i in range(3)]
    house.queue.tick()
    house.queue.tick()
    assert [o.job_id for o in house.ray.orders] == [jobs[0].id, jobs[1].id]
    house.jobs.end(jobs[0].id, "end/1", JobState.SUCCEEDED, attempt=1, adapter_version="adapters/a/versions/1")
    house.ray.submissions[f"{jobs[0].id}-1"] = SubmissionStatus.SUCCEEDED
    house.queue.tick()
    assert house.ray.orders[-1].job_id == jobs[2].id and house.ray.orders[-1].attempt == 1


def test_a_new_service_finds_running_submissions_again_and_submits_nothing_twice(house: House) -> None:
    job = house.create("r")
    house.queue.tick()
    house.restart()
    house.queue.tick()
    assert len(house.ray.orders) == 1 and house.jobs.get(job.id).dispatched


def test_a_lost_attempt_is_tried_again_and_after_too_many_the_job_fails(house: House) -> None:
    job = house.create("r")
    house.queue.tick()
    house.run(job, 1)
    house.ray.submissions[f"{job.id}-1"] = SubmissionStatus.FAILED
    house.queue.tick()
    assert house.jobs.get(job.id).state is JobState.QUEUED
    house.queue.tick()
    assert [o.attempt for o in house.ray.orders] == [1, 2]
    house.ray.submissions[f"{job.id}-2"] = SubmissionStatus.FAILED
    house.queue.tick()
    ended = house.jobs.get(job.id)
    assert ended.state is JobState.FAILED and ended.failure is not None and ended.failure.reason == "WORKER_LOST"


def test_an_attempt_that_vanished_with_its_ray_is_repeated_and_not_counted(house: House) -> None:
    job = house.create("r")
    house.queue.tick()
    house.run(job, 1)
    house.ray.current, house.ray.submissions = "ray-2", {}
    house.restart()
    for _ in range(3):
        house.queue.tick()
    again = house.jobs.get(job.id)
    assert again.lost_attempts == 0 and again.attempt is not None
    assert (again.attempt.number, again.attempt.ray_session) == (2, "ray-2")


def test_an_attempt_claimed_but_not_submitted_before_a_crash_is_submitted_by_the_next_service(house: House) -> None:
    job = house.create("r")
    house.queue.tick()
    house.ray.submissions.clear()  # as if the submit had not happened
    house.restart()
    house.queue.tick()
    assert [o.attempt for o in house.ray.orders] == [1, 1] and house.jobs.get(job.id).dispatched


def test_a_claim_whose_claimer_died_is_passed_over_after_a_while(house: House) -> None:
    job = house.create("r")
    assert house.jobs.claim_attempt(job.id, 1)
    house.queue.tick()
    assert not house.ray.orders
    house.clock.advance(31)
    house.queue.tick()
    assert [o.attempt for o in house.ray.orders] == [2]


def test_of_two_replicas_one_dispatches(house: House) -> None:
    house.create("r")
    other = house.replica()
    house.queue.tick()
    other.tick()
    assert len(house.ray.orders) == 1


def test_a_queued_job_is_cancelled_at_once_and_never_dispatched(house: House) -> None:
    job = house.create("r")
    assert house.jobs.request_cancel(job.id).state is JobState.CANCELLED
    house.queue.tick()
    assert not house.ray.orders


def test_a_driver_that_does_not_stop_is_ended_by_ray(house: House) -> None:
    job = house.create("r")
    house.queue.tick()
    assert house.jobs.request_cancel(job.id).state is JobState.QUEUED
    house.queue.tick()
    assert not house.ray.stopped
    house.clock.advance(31)
    house.queue.tick()
    house.queue.tick()
    assert house.ray.stopped == [f"{job.id}-1"] and house.jobs.get(job.id).state is JobState.CANCELLED


def test_an_ended_job_stays_as_it_is(house: House) -> None:
    job = house.create("r")
    house.queue.tick()
    house.jobs.end(job.id, "end/1", JobState.FAILED, attempt=1, failure=JobFailure("X", "x"))
    assert house.jobs.request_cancel(job.id).state is JobState.FAILED
    assert house.jobs.end(job.id, "late", JobState.SUCCEEDED).state is JobState.FAILED


def test_a_request_identifier_makes_one_job_and_another_wish_under_it_is_refused(house: House) -> None:
    assert house.create("same").id == house.create("same").id
    with pytest.raises(OperationConflict):
        house.jobs.create("same", adapter="other", base="b", dataset_version="v", config_yaml="")
    with pytest.raises(JobNotFound):
        house.jobs.get("job-0")


def test_an_older_attempt_may_write_neither_state_nor_checkpoints(house: House) -> None:
    job = house.create("r")
    house.queue.tick()
    with pytest.raises(AttemptSuperseded):
        house.jobs.end(job.id, "end/0", JobState.SUCCEEDED, attempt=0)
    checkpoints = Checkpoints(house.store, job.name, house.clock)
    checkpoints.save(Checkpoint(10, 0.5, 3, b"new"), attempt=2)
    with pytest.raises(AttemptSuperseded, match="attempt 2"):
        checkpoints.save(Checkpoint(12, 0.4, 3, b"old"), attempt=1)
    with pytest.raises(AttemptSuperseded):
        checkpoints.save(
            Checkpoint(12, 0.4, 3, b"old"), attempt=2, before_write=lambda: ensure_current(house.jobs.get(job.id), 2)
        )
    newest = checkpoints.newest()
    assert newest == Checkpoint(10, 0.5, 3, b"new") and [c.step for c in checkpoints.listed()] == [10]


def test_a_driver_s_command_survives_the_shell_and_reads_back_equal() -> None:
    import shlex

    told = DriverOrder("job-1", 1, "job-1-1", "/data dir/'x'", "s3://b/p", "", "", "d:1", "r:1", {"b": "/w"}, 1, 0.5)
    assert DriverOrder.from_json(shlex.split(entrypoint("python", told))[-1]) == told
