"""What the queue sees of all jobs, as figures: how many are where, who waits longest, whose worker says nothing more.

Every replica sees every job, so these figures are the same on each: take their maximum, not their sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from terroir.common.clock import Clock
from terroir.training.config.scheduling_keys import Priority
from terroir.training.engine.ports import TrainProgress
from terroir.training.jobs.attempts import Outcome

if TYPE_CHECKING:
    from terroir.training.jobs.documents import Job

PUBLISHING: Final = "publishing"
"""Phase of a run whose adapter is on its way to the registry."""


class JobPlace(StrEnum):
    """Where a job is; the states of the contract, and between queue and worker one more."""

    QUEUED = "queued"
    SUBMITTED = "submitted"
    """Given to Ray, which has no worker for it yet."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDS: Final = (JobPlace.SUCCEEDED, JobPlace.FAILED, JobPlace.CANCELLED)


@dataclass(frozen=True)
class _Waiting:
    attempts: int
    since: float
    """Reading of the monotonic clock."""


@dataclass(frozen=True)
class _Heard:
    progress: TrainProgress | None
    at: float
    """When it was seen to change."""


@dataclass
class Totals:
    """What has happened since this process began; they only grow."""

    submitted: int = 0
    lost: int = 0
    publish_failures: int = 0
    steps: int = 0
    preemptions: Counter[Priority] = field(default_factory=Counter)
    """By the class of the job that makes room."""
    ended: Counter[JobPlace] = field(default_factory=Counter)


class JobCensus:
    """Written by the queue's thread, read by whoever shows it; what is read may be a look old, never torn."""

    def __init__(self, clock: Clock) -> None:
        self.totals = Totals()
        self.limit = 0
        """Jobs that Ray may have at once."""
        self._clock = clock
        self._looked = clock.monotonic()
        self._places: Mapping[JobPlace, int] = {}
        self._ended: dict[str, JobPlace] = {}
        self._asked: dict[str, int] | None = None
        """By job: its newest attempt that was asked to make room; None: nothing was seen yet."""
        self._waiting: dict[str, _Waiting] = {}
        self._heard: dict[str, _Heard] = {}

    def look(self, jobs: Sequence[Job], limit: int) -> None:
        """All jobs that have not ended, and those that have since the last look."""
        self.limit = limit
        places = {job.id: _place(job) for job in jobs}
        for job in jobs:
            if job.ended:
                self._ended[job.id] = places[job.id]
            else:
                self._ended.pop(job.id, None)  # queued again, such as by the answers of people that it waited for
        self._count_preemptions(jobs)
        waiting = [job for job in jobs if places[job.id] in (JobPlace.QUEUED, JobPlace.SUBMITTED)]
        self._waiting = {job.id: self._since(job) for job in waiting}
        now = self._clock.monotonic()
        running = [job.id for job in jobs if places[job.id] is JobPlace.RUNNING]
        self._heard = {job: self._heard.get(job, _Heard(None, now)) for job in running}
        counted = Counter(place for job, place in places.items() if job not in self._ended)
        self._places = counted + Counter(self._ended.values())
        self._looked = now

    def hear(self, job_id: str, progress: TrainProgress | None) -> None:
        """The newest progress of a running job; what is the same as before is no sign of life."""
        before = self._heard.get(job_id)
        if before is None or progress is None or progress == before.progress:
            return
        self._heard[job_id] = _Heard(progress, self._clock.monotonic())
        if before.progress is not None:  # else nobody knows when these steps were made
            self.totals.steps += max(0, progress.step - before.progress.step)

    def submitted(self) -> None:
        """An attempt was given to Ray."""
        self.totals.submitted += 1

    def lost(self, last: TrainProgress | None) -> None:
        """An attempt ended without a result; `last` is what it reported last."""
        self.totals.lost += 1
        self.totals.publish_failures += _was_publishing(last)

    def ended(self, job: Job, last: TrainProgress | None) -> None:
        """A job was seen to end."""
        place = _place(job)
        self.totals.ended[place] += 1
        self.totals.publish_failures += place is JobPlace.FAILED and _was_publishing(last)

    def count(self, place: JobPlace) -> int:
        """Jobs in a place."""
        return self._places.get(place, 0)

    def oldest_queued_seconds(self) -> float:
        """How long the job has waited that has waited longest for a worker; 0 if none waits."""
        return self._longest(one.since for one in self._waiting.values())

    def heartbeat_seconds(self) -> float:
        """How long ago the running job that is silent longest reported something new; 0 if none runs."""
        return self._longest(one.at for one in self._heard.values())

    def look_seconds(self) -> float:
        """How long ago the queue looked at all jobs."""
        return self._longest([self._looked])

    def _count_preemptions(self, jobs: Sequence[Job]) -> None:
        """Of attempts that were asked since the last look, by whichever replica; they may be over by now."""
        first, known = self._asked is None, self._asked or {}
        for job in jobs:
            asked = [past.number for past in job.history if past.outcome is Outcome.PREEMPTED]
            if job.preempt_for and job.attempt is not None:
                asked.append(job.attempt.number)
            if not first:
                self.totals.preemptions[job.wish.priority] += sum(number > known.get(job.id, 0) for number in asked)
            if asked:
                known[job.id] = asked[-1]
        self._asked = known

    def _longest(self, times: Iterable[float]) -> float:
        now = self._clock.monotonic()
        return max((now - at for at in times), default=0.0)

    def _since(self, job: Job) -> _Waiting:
        attempts = job.attempt.number if job.attempt else 0
        before = self._waiting.get(job.id)
        # A job that is dispatched goes on waiting; one whose attempt was lost waits anew.
        if before is not None and (before.attempts == attempts or job.dispatched):
            return _Waiting(attempts, before.since)
        never_ran = job.attempt is None or (job.dispatched and attempts == 1)
        age = (self._clock.now() - datetime.fromisoformat(job.created_at)).total_seconds() if never_ran else 0.0
        return _Waiting(attempts, self._clock.monotonic() - max(0.0, age))


def _place(job: Job) -> JobPlace:
    if job.state == "queued":
        return JobPlace.SUBMITTED if job.dispatched else JobPlace.QUEUED
    return JobPlace(job.state.value)


def _was_publishing(progress: TrainProgress | None) -> bool:
    return progress is not None and progress.phase == PUBLISHING
