"""The queue: carries out what the scheduling policy decides, watches drivers, and tries again what was lost.

All state is in the object store, so a service that was killed goes on where it stopped, and drivers that still run are
found again by their submission. Every replica decides over what it sees; the create-only claim of an attempt lets one
of them dispatch it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.store.errors import StoreError
from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_jobs import Submission
from terroir.training.cluster.ray_runtime import RayRuntime
from terroir.training.engine.ports import TrainProgress
from terroir.training.jobs.attempts import Attempt, Outcome
from terroir.training.jobs.documents import Job, JobFailure, Jobs, JobState
from terroir.training.jobs.queue_plan import QueueLimits, QueuePlan
from terroir.training.jobs.view import JobsView
from terroir.training.scheduling.model import Node, Preemption, Situation, Wait
from terroir.training.scheduling.policy import decide
from terroir.training.ticking import Ticking

_log = structlog.get_logger(__name__)
_LISTEN_SECONDS: Final = 5.0
"""Between two looks at what running attempts report."""
_COUNT_SECONDS: Final = 5.0
"""Between two looks at which nodes are up."""
_TRIM_SECONDS: Final = 60.0
"""Between two looks for announcements that nobody needs any more."""
_ADOPT_SECONDS: Final = 30.0
"""Another replica that claimed an attempt has this long to submit it."""
_CANCEL_SECONDS: Final = 30.0
"""A driver that was asked to stop has this long before Ray ends it."""


@dataclass(frozen=True)
class Standing:
    """What the last tick saw and why jobs wait."""

    situation: Situation | None = None
    waits: Mapping[str, Wait] = field(default_factory=dict)
    """By job, in the order in which they are looked at."""


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
        self.view = JobsView(jobs, clock)
        self.standing = Standing()
        """Replaced by each tick, never changed."""
        self._jobs = jobs
        self._ray = ray
        self._order = order
        self._limits = limits
        self._plan = QueuePlan(limits)
        self._clock = clock
        self._asked_since: dict[str, float] = {}
        """By submission: when this process first saw that it shall stop."""
        self._submitted: set[str] = set()
        self._open: set[str] | None = None
        """Jobs that had not ended at the last tick."""
        self._listened = self._counted = self._trimmed = float("-inf")
        self._known_nodes: tuple[Node, ...] = ()
        self._loop = Ticking("queue", self.tick)

    def added(self, _job_id: str) -> None:
        """A job may have something to do: look now."""
        self._loop.wake()

    def run(self) -> None:
        """Tick until `stop`."""
        self._loop.run()

    def stop(self) -> None:
        """Let `run` return."""
        self._loop.stop()

    def tick(self) -> None:
        """Look at every job that has not ended, decide, and do it."""
        self.view.refresh()
        seen = [self._watch(job) if job.dispatched else job for job in self._due()]
        self._plan.learn(seen)
        going = [job for job in seen if not job.ended]
        situation = self._plan.situation(going, self._clock.now().timestamp(), self._nodes())
        decision = decide(situation)
        self.standing = Standing(situation, decision.waits)
        for each in decision.preempt:
            self._ask_to_make_room(each)
        self._dispatch_all(decision.dispatch, {job.id for job in situation.running})
        self._take_census([self.view.get(job.id) or job for job in seen])
        if self._clock.monotonic() - self._trimmed >= _TRIM_SECONDS:
            self._trimmed = self._clock.monotonic()
            self._jobs.trim_journal()

    def _nodes(self) -> tuple[Node, ...]:
        """Of a cluster that keeps its size, as they were seen a few seconds ago; none of one that grows."""
        if not self._limits.grows and self._clock.monotonic() - self._counted >= _COUNT_SECONDS:
            self._known_nodes = self._ray.nodes() or self._known_nodes
            self._counted = self._clock.monotonic()
        return self._known_nodes

    def _due(self) -> list[Job]:
        """Jobs that have not ended, and those that have since the last tick; at first all."""
        if self._open is None:
            return self.view.all()
        known = self.view.open()
        ended = self._open - {job.id for job in known}
        return [*known, *(job for job_id in sorted(ended) if (job := self.view.get(job_id)))]

    def _dispatch_all(self, job_ids: Sequence[str], running: set[str]) -> None:
        """Give jobs to Ray, as long as no other replica has given it some that were not counted."""
        for number, job_id in enumerate(job_ids):
            if self._loop.stopping:
                return
            if number:
                self.view.refresh()
            others = {job.id for job in self.view.open() if job.dispatched} - running
            if others or (job := self.view.get(job_id)) is None:
                self._loop.wake()  # decide anew
                return
            if not job.ended and self._dispatch(job):
                running.add(job_id)

    def _dispatch(self, job: Job) -> bool:
        session = self._ray.session()
        number = (job.attempt.number if job.attempt else 0) + 1
        while not self._jobs.claim_attempt(job.id, number):
            if not self._forsaken(job, number):
                return False
            number += 1
        attempt = Attempt(
            number, f"{job.id}-{number}", session, since=self._clock.now().isoformat(timespec="milliseconds")
        )
        current = self._jobs.change(job.id, f"dispatch/{number}", lambda head: _dispatched(head, attempt))
        if current.attempt == attempt and current.dispatched:
            self._submit(current, attempt)
        return True

    def _ask_to_make_room(self, preemption: Preemption) -> None:
        victim = self.view.get(preemption.victim)
        if victim is not None and victim.attempt is not None:
            self._jobs.ask_to_make_room(victim.id, victim.attempt.number, preemption.beneficiary)
            _log.info("job_makes_room", job=victim.name, beneficiary=f"jobs/{preemption.beneficiary}")

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
            self._press(job, attempt)
            return job
        fresh = self._jobs.get(job.id)  # the driver may have written its end just before it exited
        if fresh.ended or not fresh.dispatched or fresh.attempt is None or fresh.attempt.number != attempt.number:
            return fresh
        if submission is None and self._may_still_come(fresh, fresh.attempt):
            if attempt.ray_session == self._ray.session():
                self._submit(fresh, fresh.attempt)
            return fresh
        return self._lost(fresh, fresh.attempt, submission)

    def _may_still_come(self, job: Job, attempt: Attempt) -> bool:
        """Whether an unknown submission was claimed but not yet started: no worker has entered its identifier."""
        return attempt.submission_id not in self._submitted and not attempt.worker_pid and not job.cancel_requested

    def _press(self, job: Job, attempt: Attempt) -> None:
        """End a driver that was asked to stop and does not."""
        if not job.cancel_requested and not job.preempt_for:
            return
        saves = attempt.started and not job.cancel_requested  # without a worker there is nothing to save
        patience = self._limits.make_room_seconds if saves else _CANCEL_SECONDS
        since = self._asked_since.setdefault(attempt.submission_id, self._clock.monotonic())
        if self._clock.monotonic() - since >= patience:
            self._ray.stop_submission(attempt)

    def _lost(self, job: Job, attempt: Attempt, submission: Submission | None) -> Job:
        """The driver is gone and wrote no end: cancel, wait for another attempt, or give up."""
        if job.cancel_requested:
            return self._jobs.end(job.id, f"cancelled/{attempt.number}", JobState.CANCELLED)
        why = submission.message if submission else "its Ray is gone"
        if job.preempt_for:
            return self._jobs.requeue(job.id, f"preempted/{attempt.number}", attempt.number, Outcome.PREEMPTED, why)
        self._jobs.census.lost(self._progress(job))
        _log.warning("attempt_lost", job=job.name, attempt=attempt.number, lost=job.lost_attempts, why=why[:300])
        if submission is None:
            # An attempt that vanished with its whole Ray (a restart of this service) is nobody's failure.
            return self._jobs.requeue(job.id, f"lost/{attempt.number}", attempt.number, Outcome.RAY_GONE, why)
        lost = job.lost_attempts + 1
        if lost > (retries := self._limits.retries(job)):
            return self._give_up(
                job, attempt, f"{lost} attempts were lost, {retries} retries allow no more ({why[:500]})"
            )
        pause = self._limits.pause_seconds(lost)
        op_id = f"lost/{attempt.number}"
        return self._jobs.requeue(job.id, op_id, attempt.number, Outcome.LOST, why, pause_seconds=pause)

    def _give_up(self, job: Job, attempt: Attempt, why: str) -> Job:
        failure = JobFailure("WORKER_LOST", f"{why}; its checkpoints stay: look at the log, then submit the run again")
        lost = job.lost_attempts + 1
        return self._jobs.end(
            job.id, f"lost/{attempt.number}", JobState.FAILED, outcome=Outcome.LOST, failure=failure, lost_attempts=lost
        )

    def _take_census(self, seen: Sequence[Job]) -> None:
        """Last in a tick: figures must hold up nothing."""
        census = self._jobs.census
        census.look(seen, self._limits.capacity.max_jobs)
        before, self._open = self._open or set(), {job.id for job in seen if not job.ended}
        for job in seen:
            if job.ended and job.id in before:
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
    if job.ended or job.dispatched or (job.attempt and job.attempt.number >= attempt.number):
        return job
    return replace(job, attempt=attempt, dispatched=True, not_before="")
