"""The queue: gives jobs to Ray in order of creation, watches their drivers, and tries again what was lost.

All state is in the object store, so a service that was killed goes on where it stopped, and drivers that still run are
found again by their submission.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import TerroirError
from terroir.store.errors import StoreError
from terroir.training.driver_order import DriverOrder
from terroir.training.engine.ports import TrainProgress
from terroir.training.jobs import Attempt, Job, JobFailure, Jobs, JobState
from terroir.training.ray_jobs import Submission
from terroir.training.ray_runtime import RayRuntime

_log = structlog.get_logger(__name__)
_TICK_SECONDS: Final = 0.5
_RELIST_SECONDS: Final = 5.0
_LISTEN_SECONDS: Final = 5.0
"""Between two looks at what running attempts report."""
_ADOPT_SECONDS: Final = 30.0
"""Another replica that claimed an attempt has this long to submit it."""
_CANCEL_SECONDS: Final = 30.0
"""A driver that was asked to stop has this long before Ray ends it."""


@dataclass(frozen=True)
class QueueLimits:
    """What an operator allows."""

    max_running: int
    max_lost_attempts: int


class Queue:
    """Moves jobs along; `tick` does what is due, `run` repeats it in a thread."""

    def __init__(
        self,
        jobs: Jobs,
        ray: RayRuntime,
        order: Callable[[Job, Attempt], DriverOrder],
        limits: QueueLimits,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._ray = ray
        self._order = order
        self._limits = limits
        self._clock = clock
        self._active: set[str] = set()
        self._ended: set[str] = set()
        self._listed = float("-inf")
        self._cancelled_since: dict[str, float] = {}
        self._submitted: set[str] = set()
        self._open: set[str] = set()
        """Jobs that this process knew before they ended."""
        self._listened = float("-inf")
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def added(self, job_id: str) -> None:
        """A job may have something to do: look at it now."""
        self._active.add(job_id)
        self._open.add(job_id)
        self._wake.set()

    def run(self) -> None:
        """Tick until `stop`; an error is logged and the next tick tries again."""
        while not self._stopping.is_set():
            try:
                self.tick()
            except (TerroirError, StoreError) as error:
                _log.warning("queue_waits", reason=error.reason, error=str(error))
            except Exception:
                # One job that breaks the queue must not stop all others for good.
                _log.exception("queue_failed")
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping.set()
        self._wake.set()

    def tick(self) -> None:
        """Look at every job that has not ended, oldest first."""
        self._relist()
        jobs = sorted((self._jobs.get(job_id) for job_id in tuple(self._active)), key=lambda job: job.created_at)
        running = 0
        seen = []
        for job in jobs:
            current = self._watch(job) if job.dispatched else job
            seen.append(current)
            if current.ended:
                self._active.discard(current.id)
                self._ended.add(current.id)
            elif current.dispatched:
                running += 1
            elif running < self._limits.max_running and not self._stopping.is_set():
                running += self._dispatch(current)
        self._take_census(seen)

    def _relist(self) -> None:
        if self._clock.monotonic() - self._listed >= _RELIST_SECONDS:
            self._active |= set(self._jobs.ids()) - self._ended
            self._listed = self._clock.monotonic()

    def _dispatch(self, job: Job) -> bool:
        session = self._ray.session()
        number = (job.attempt.number if job.attempt else 0) + 1
        while not self._jobs.claim_attempt(job.id, number):
            if not self._forsaken(job, number):
                return False
            number += 1
        attempt = Attempt(number, f"{job.id}-{number}", session)
        current = self._jobs.change(job.id, f"dispatch/{number}", lambda head: _dispatched(head, attempt))
        if current.attempt == attempt and current.dispatched:
            self._submit(current, attempt)
        return True

    def _submit(self, job: Job, attempt: Attempt) -> None:
        self._ray.submit(self._order(job, attempt))
        self._submitted.add(attempt.submission_id)
        self._jobs.census.submitted()
        _log.info("attempt_submitted", job=job.name, attempt=attempt.number, submission=attempt.submission_id)

    def _watch(self, job: Job) -> Job:
        attempt = job.attempt
        if attempt is None:
            return job
        submission = self._ray.look(attempt)
        if submission is not None and submission.alive:
            self._press_cancel(job, attempt)
            return job
        fresh = self._jobs.get(job.id)  # the driver may have written its end just before it exited
        if fresh.ended or fresh.attempt != attempt:
            return fresh
        if submission is None and self._may_still_come(fresh, attempt):
            if attempt.ray_session == self._ray.session():
                self._submit(fresh, attempt)
            return fresh
        return self._lost(fresh, attempt, submission)

    def _may_still_come(self, job: Job, attempt: Attempt) -> bool:
        """Whether an unknown submission was claimed but not yet started: no worker has entered its identifier."""
        return attempt.submission_id not in self._submitted and not attempt.worker_pid and not job.cancel_requested

    def _press_cancel(self, job: Job, attempt: Attempt) -> None:
        if not job.cancel_requested:
            return
        since = self._cancelled_since.setdefault(job.id, self._clock.monotonic())
        if self._clock.monotonic() - since >= _CANCEL_SECONDS:
            self._ray.stop_submission(attempt)

    def _lost(self, job: Job, attempt: Attempt, submission: Submission | None) -> Job:
        """The driver is gone and wrote no end: cancel, try again, or give up."""
        if job.cancel_requested:
            return self._jobs.end(job.id, f"cancelled/{attempt.number}", JobState.CANCELLED)
        # An attempt that vanished with its whole Ray (a restart of this service) is nobody's failure.
        lost = job.lost_attempts + (submission is not None)
        why = submission.message if submission else "its Ray is gone"
        self._jobs.census.lost(self._progress(job))
        _log.warning("attempt_lost", job=job.name, attempt=attempt.number, lost=lost, why=why[:300])
        if lost >= self._limits.max_lost_attempts:
            failure = JobFailure(
                "WORKER_LOST",
                f"{lost} attempts ended without a result ({why[:500]}); its checkpoints stay: look at the log, "
                "then submit the run again",
            )
            return self._jobs.end(job.id, f"lost/{attempt.number}", JobState.FAILED, failure=failure)
        return self._jobs.change(
            job.id,
            f"lost/{attempt.number}",
            lambda head: (
                head
                if head.ended or head.attempt is None or head.attempt.number != attempt.number
                else replace(head, state=JobState.QUEUED, dispatched=False, lost_attempts=lost)
            ),
        )

    def _take_census(self, seen: Sequence[Job]) -> None:
        """Last in a tick: figures must hold up nothing."""
        census = self._jobs.census
        census.look(seen, self._limits.max_running)
        for job in seen:
            if not job.ended:
                self._open.add(job.id)
            elif job.id in self._open:
                self._open.discard(job.id)
                census.ended(job, self._progress(job))
        if self._clock.monotonic() - self._listened >= _LISTEN_SECONDS:
            self._listened = self._clock.monotonic()
            for job in seen:
                if job.state is JobState.RUNNING:
                    census.hear(job.id, self._progress(job))

    def _progress(self, job: Job) -> TrainProgress | None:
        try:
            return self._jobs.progress(job)
        except StoreError as error:  # a figure only, and the next look asks again
            _log.warning("progress_unread", job=job.name, reason=error.reason)
            return None

    def _forsaken(self, job: Job, number: int) -> bool:
        """Whether the claim of an attempt is old and the job does not know of it: its claimer died in between."""
        claimed = self._jobs.claimed_at(job.id, number)
        return (self._clock.now() - claimed).total_seconds() > _ADOPT_SECONDS


def _dispatched(job: Job, attempt: Attempt) -> Job:
    if job.ended or (job.attempt and job.attempt.number >= attempt.number):
        return job
    return replace(job, attempt=attempt, dispatched=True)
