"""What operators see of the queue: every figure moves when, and only when, its thing happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from terroir.store.errors import StoreUnavailable
from terroir.training.attempt.files import write_progress
from terroir.training.cluster.ray_jobs import SubmissionStatus
from terroir.training.config.scheduling_keys import Priority
from terroir.training.engine.ports import TrainProgress
from terroir.training.jobs.attempts import Outcome
from terroir.training.jobs.documents import Job, JobFailure, JobState, attempt_prefix
from terroir.training.jobs.queue import Queue
from terroir.training.metrics import TrainingMetrics
from terroir.training.scheduling.wishes import Wish
from tests.unit.training.test_queue import TWO, House, order


class Watched(House):
    """A queue whose census is on Prometheus."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.registry = CollectorRegistry()
        self.begin()

    def begin(self) -> None:
        """A new service over the same store, with metrics of its own."""
        self.queue = Queue(self.jobs, self.ray, order, TWO, self.clock)
        TrainingMetrics(self.registry).watch(self.jobs.census)

    def seen(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"terroir_training_{name}", labels)
        assert value is not None, name
        return value

    def places(self) -> dict[str, float]:
        """Places that hold a job."""
        places = ("queued", "submitted", "running", "succeeded", "failed", "cancelled")
        return {place: count for place in places if (count := self.seen("jobs", state=place))}

    def report(self, job: Job, attempt: int, phase: str, step: int = 0) -> None:
        """What a worker writes as it goes on."""
        write_progress(self.store, attempt_prefix(job.id, attempt), TrainProgress(phase, step))

    def look(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.queue.tick()


@pytest.fixture
def house() -> Watched:
    return Watched()


def test_jobs_are_counted_where_they_are(house: Watched) -> None:
    jobs = [house.create(f"r{number}") for number in range(3)]
    house.look()
    house.look()
    assert house.places() == {"submitted": 2, "queued": 1}
    assert (house.seen("queue_depth"), house.seen("running_limit")) == (3, 2)
    house.run(jobs[0], 1)
    house.look()
    assert house.places() == {"running": 1, "submitted": 1, "queued": 1}
    house.jobs.end(jobs[0].id, "end/1", JobState.SUCCEEDED, attempt=1)
    house.ray.submissions[f"{jobs[0].id}-1"] = SubmissionStatus.SUCCEEDED
    house.look()
    house.look()
    assert house.places() == {"succeeded": 1, "submitted": 2}
    assert house.seen("jobs_ended_total", state="succeeded") == 1 and house.seen("attempts_submitted_total") == 3


def test_the_oldest_wait_grows_until_a_worker_begins_and_starts_anew_after_a_loss(house: Watched) -> None:
    job = house.create("r")
    house.look(30)
    house.clock.advance(30)
    assert house.seen("oldest_queued_seconds") == 60  # at the scrape, not at the look
    house.look()
    assert house.seen("oldest_queued_seconds") == 60  # Ray has no worker for it yet
    house.run(job, 1)
    house.look()
    assert house.seen("oldest_queued_seconds") == 0
    house.ray.submissions[f"{job.id}-1"] = SubmissionStatus.FAILED
    house.look(500)
    house.clock.advance(7)
    assert house.seen("oldest_queued_seconds") == 7
    assert house.seen("attempts_lost_total") == 1


def test_a_running_job_that_reports_nothing_new_is_silent(house: Watched) -> None:
    job = house.create("r")
    house.look()
    house.run(job, 1)
    house.report(job, 1, "training", 10)
    house.look(5)
    house.look(5)
    assert house.seen("heartbeat_age_seconds") == 5
    house.look(20)  # the same report as before is no sign of life
    assert house.seen("heartbeat_age_seconds") == 25
    house.report(job, 1, "training", 14)
    house.look(5)
    assert house.seen("heartbeat_age_seconds") == 0
    assert house.seen("steps_total") == 4


def test_each_attempt_that_is_asked_to_make_room_counts_once_on_every_replica(house: Watched) -> None:
    """Also on one that did not ask, and one that heard of it when the attempt was over."""
    low = house.create("low", Wish(priority=Priority.LOW))
    normal = house.create("normal", Wish(preemptible=False))
    house.look()
    other, late = (Watched(store=house.store, clock=house.clock, ray=house.ray) for _ in range(2))
    other.look()
    late.look()
    house.run(low, 1)
    house.run(normal, 1)
    house.create("urgent", Wish(priority=Priority.HIGH))
    for seeing in (house, other, house):
        seeing.look(1)
    house.jobs.requeue(low.id, "preempted/1", 1, Outcome.PREEMPTED, "made room")
    for seeing in (house, other, late, late):
        seeing.look(1)
        assert [seeing.seen("preemptions_total", priority=of) for of in ("low", "normal", "high")] == [1, 0, 0]
    begun_later = Watched(store=house.store, clock=house.clock, ray=house.ray)
    begun_later.look()
    assert begun_later.seen("preemptions_total", priority="low") == 0


def test_nobody_running_is_no_silence(house: Watched) -> None:
    house.create("r")
    house.look(10_000)
    assert house.seen("heartbeat_age_seconds") == 0


def test_a_queue_that_fails_shows_how_long_ago_it_looked(house: Watched) -> None:
    house.look()
    house.clock.advance(90)
    assert house.seen("queue_look_age_seconds") == 90
    house.look()
    assert house.seen("queue_look_age_seconds") == 0


@pytest.mark.parametrize(("phase", "failures"), [("training", 0), ("publishing", 1)])
def test_a_job_that_fails_while_it_publishes_is_a_publish_failure(house: Watched, phase: str, failures: int) -> None:
    job = house.create("r")
    house.look()
    house.run(job, 1)
    house.report(job, 1, phase)
    house.jobs.end(job.id, "end/1", JobState.FAILED, attempt=1, failure=JobFailure("ADAPTER_BASE_MISMATCH", "x"))
    house.ray.submissions[f"{job.id}-1"] = SubmissionStatus.SUCCEEDED
    house.look()
    assert house.seen("publish_failures_total") == failures
    assert house.seen("jobs_ended_total", state="failed") == 1


def test_an_attempt_lost_while_it_publishes_is_a_publish_failure(house: Watched) -> None:
    job = house.create("r")
    house.look()
    house.run(job, 1)
    house.report(job, 1, "publishing")
    house.ray.submissions[f"{job.id}-1"] = SubmissionStatus.FAILED
    house.look()
    assert (house.seen("publish_failures_total"), house.seen("attempts_lost_total")) == (1, 1)


def test_what_ended_before_a_start_is_counted_where_it_is_and_not_as_an_end(house: Watched) -> None:
    job = house.create("r")
    house.jobs.end(job.id, "end/0", JobState.CANCELLED)
    again = Watched(store=house.store, clock=house.clock)
    again.look()
    assert again.places() == {"cancelled": 1} and again.seen("jobs_ended_total", state="cancelled") == 0


def test_a_report_that_cannot_be_read_holds_up_nothing(house: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.create("r")
    house.look()
    house.run(job, 1)

    def fails(_job: Job) -> None:
        raise StoreUnavailable("gone", "key")

    monkeypatch.setattr(house.jobs, "progress", fails)
    house.look(10)
    assert house.places() == {"running": 1} and house.seen("heartbeat_age_seconds") == 0
    house.look(10)
    assert house.seen("heartbeat_age_seconds") == 10


def test_a_job_that_is_queued_again_after_its_end_counts_where_it_is(house: Watched) -> None:
    """Such as one whose publishing waited for people's ratings: it stayed among those that failed."""
    job = house.create("r")
    house.look()
    house.jobs.end(job.id, "end/1", JobState.FAILED, attempt=1, failure=JobFailure("RATING_WAITING", "rate it"))
    house.look()
    assert house.places() == {"failed": 1}
    house.jobs.change(job.id, "again", lambda j: replace(j, state=JobState.QUEUED, failure=None, ended_at=""))
    house.look()
    house.look()
    assert house.places() == {"submitted": 1}
