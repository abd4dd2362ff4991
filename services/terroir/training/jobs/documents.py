"""Jobs: one sequence of documents each, written by the service and by the attempt that runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from terroir.common.clock import Clock
from terroir.store.documents import Collection, Document, DocumentSequence
from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal
from terroir.training.attempt.files import read_progress
from terroir.training.config.scheduling_keys import Priority
from terroir.training.engine.ports import TrainProgress
from terroir.training.errors import AttemptSuperseded, JobNotFound
from terroir.training.jobs.attempts import Attempt, Outcome, PastAttempt
from terroir.training.jobs.census import JobCensus
from terroir.training.scheduling.wishes import PLAIN, Wish

PREFIX: Final = "jobs"
JOURNAL: Final = "jobs-journal"
"""Announces every change of a job, so that a queue of a thousand jobs is followed with one read."""
_JOURNAL_KEPT: Final = timedelta(days=1)


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed."""

    reason: str
    message: str


@dataclass(frozen=True)
class Job:
    """A job as its newest document has it; `etag` and times come from the store."""

    id: str
    adapter: str
    """Identifier of the adapter that receives the result."""
    base: str
    """Identifier of the base."""
    dataset_version: str
    """`datasets/{id}/versions/{number}`."""
    config_yaml: str
    created_at: str
    """RFC 3339, UTC."""
    state: JobState = JobState.QUEUED
    dispatched: bool = False
    """Whether `attempt` was given to Ray and is not known to be lost."""
    attempt: Attempt | None = None
    lost_attempts: int = 0
    cancel_requested: bool = False
    adapter_version: str = ""
    failure: JobFailure | None = None
    ended_at: str = ""
    creator: str = ""
    """Name of the principal who asked for it."""
    traceparent: str = ""
    """The span of the call that created it, as W3C Trace Context writes it; empty: no trace."""
    wish: Wish = PLAIN
    """What it asks of the queue."""
    preempt_for: str = ""
    """The job that it shall make room for: its attempt saves a checkpoint and ends. Empty: none."""
    not_before: str = ""
    """End of the back-off after a loss, RFC 3339; empty: at once."""
    history: tuple[PastAttempt, ...] = ()
    """Attempts that are over, oldest first."""
    etag: str = ""

    @property
    def name(self) -> str:
        """`jobs/{id}`."""
        return f"{PREFIX}/{self.id}"

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state in ENDED


class Jobs:
    """Reads and changes jobs; safe for threads, processes and replicas."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.journal = Journal(store, JOURNAL, clock)
        self._sequences = Collection(store, PREFIX, clock, log=self.journal)
        self.census = JobCensus(clock)
        """Kept by the queue of this process, where there is one."""

    def create(
        self, request_id: str, *, adapter: str, base: str, dataset_version: str, config_yaml: str, creator: str = "",
        traceparent: str = "", wish: Wish = PLAIN,
    ) -> Job:  # fmt: skip
        """Queue a job; the same `request_id` returns the same job (OperationConflict for other wishes)."""
        job_id = job_id_of(request_id)
        job = Job(
            job_id, adapter, base, dataset_version, config_yaml, created_at=self._now(), creator=creator,
            traceparent=traceparent, wish=wish,
        )  # fmt: skip
        self._sequences.sequence(job_id).append_with(
            lambda _: _body(job),
            op_id=f"create/{request_id}",
            request={"adapter": adapter, "base": base, "dataset_version": dataset_version, "config": config_yaml},
        )
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """One job; raises JobNotFound."""
        try:
            return job_of(self._sequences.sequence(job_id).head())
        except NotFound as error:
            raise JobNotFound(f"{PREFIX}/{job_id} does not exist (list them: terroir train list)") from error

    def documents(self, job_id: str) -> DocumentSequence:
        """Everything that was ever written of a job; `job_of` reads one."""
        return self._sequences.sequence(job_id)

    def progress(self, job: Job) -> TrainProgress | None:
        """What the newest attempt reported last, if it has reported anything."""
        return read_progress(self._store, attempt_prefix(job.id, job.attempt.number)) if job.attempt else None

    def ids(self) -> list[str]:
        """Identifiers of all jobs."""
        return self._sequences.ids()

    def change(self, job_id: str, op_id: str, update: Callable[[Job], Job]) -> Job:
        """Write `update(job)` unless it changes nothing, and return the job as it is then.

        `op_id` names the change and makes a repeat harmless.
        """
        sequence = self._sequences.sequence(job_id)

        def build(head: Document | None) -> Mapping[str, Any]:
            if head is None:
                raise JobNotFound(f"{PREFIX}/{job_id} does not exist")
            before = job_of(head)
            after = update(before)
            if after == before:
                raise _UnchangedError(before)
            return _body(after)

        try:
            sequence.append_with(build, op_id=op_id, request={"change": op_id})
        except _UnchangedError as unchanged:
            return unchanged.job
        return self.get(job_id)

    def end(
        self, job_id: str, op_id: str, state: JobState, *, attempt: int | None = None,
        outcome: Outcome | None = None, **fields: Any,
    ) -> Job:  # fmt: skip
        """Bring a job to its end; one that has ended stays as it is. Raises AttemptSuperseded for an old `attempt`.

        `outcome` is what became of the attempt where that is not what became of the job.
        """

        def update(job: Job) -> Job:
            if attempt is not None:
                ensure_current(job, attempt)
            if job.ended:
                return job
            failure: JobFailure | None = fields.get("failure")
            why = f"{failure.reason}: {failure.message}" if failure else state.value
            closed = self._closed(job, outcome or Outcome(state.value), why)
            return replace(closed, state=state, ended_at=self._now(), **fields)

        return self.change(job_id, op_id, update)

    def requeue(
        self, job_id: str, op_id: str, attempt: int, outcome: Outcome, why: str, *, pause_seconds: float = 0.0
    ) -> Job:
        """End an attempt and let the job wait for the next one; a loss counts, whatever else stopped it does not.

        A job that has ended, or whose newest attempt is another, stays as it is.
        """

        def update(job: Job) -> Job:
            if not job.dispatched or job.ended or job.attempt is None or job.attempt.number != attempt:
                return job
            closed = self._closed(job, outcome, why)
            return replace(
                closed,
                state=JobState.QUEUED,
                lost_attempts=job.lost_attempts + (outcome is Outcome.LOST),
                not_before=self._now(pause_seconds) if pause_seconds else "",
            )

        return self.change(job_id, op_id, update)

    def ask_to_make_room(self, job_id: str, attempt: int, beneficiary: str) -> Job:
        """Have a running attempt save a checkpoint and end, so that another job gets its place."""

        def update(job: Job) -> Job:
            current = job.attempt is not None and job.attempt.number == attempt
            if not current or not job.dispatched or job.cancel_requested or job.preempt_for:
                return job
            return replace(job, preempt_for=beneficiary)

        return self.change(job_id, f"preempt/{attempt}", update)

    def _closed(self, job: Job, outcome: Outcome, why: str) -> Job:
        """A job whose attempt, if one runs, is past."""
        if job.attempt is None or not job.dispatched:
            return replace(job, dispatched=False, preempt_for="")
        past = PastAttempt.of(job.attempt, self._now(), outcome, why)
        return replace(job, dispatched=False, preempt_for="", history=(*job.history, past))

    def claim_attempt(self, job_id: str, number: int) -> bool:
        """Take the right to dispatch an attempt; false if another replica has it."""
        try:
            self._store.create(f"{attempt_prefix(job_id, number)}/claim", self._now().encode())
        except AlreadyExists:
            return False
        return True

    def claimed_at(self, job_id: str, number: int) -> datetime:
        """When an attempt was claimed."""
        return datetime.fromisoformat(self._store.get(f"{attempt_prefix(job_id, number)}/claim").decode())

    def request_cancel(self, job_id: str) -> Job:
        """Ask for the end; a job that no worker has yet ends at once, an ended one stays."""

        def update(job: Job) -> Job:
            if job.ended or job.cancel_requested:
                return job
            if not job.dispatched:
                return replace(job, state=JobState.CANCELLED, cancel_requested=True, ended_at=self._now())
            return replace(job, cancel_requested=True)

        return self.change(job_id, "cancel", update)

    def trim_journal(self) -> bool:
        """Delete a piece of what was announced more than a day ago; whether there was one. See `JobsView.refresh`."""
        return self.journal.trim(_JOURNAL_KEPT)

    def _now(self, later_seconds: float = 0.0) -> str:
        return (self._clock.now() + timedelta(seconds=later_seconds)).isoformat(timespec="milliseconds")


class _UnchangedError(Exception):
    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


def job_id_of(request_id: str) -> str:
    """The identifier of the job that a request makes."""
    return f"job-{hashlib.sha256(request_id.encode()).hexdigest()[:16]}"


def attempt_prefix(job_id: str, number: int) -> str:
    """Where an attempt keeps its claim, log, curves and progress."""
    return f"{PREFIX}/{job_id}/attempts/{number}"


def ensure_current(job: Job, attempt: int) -> None:
    """Raise AttemptSuperseded unless `attempt` is the job's newest."""
    newest = job.attempt.number if job.attempt else 0
    if newest != attempt:
        raise AttemptSuperseded(
            f"attempt {attempt} of {job.name} was replaced by attempt {newest}; it writes nothing more"
        )


def _body(job: Job) -> dict[str, Any]:
    body = asdict(job)
    del body["etag"]
    return body


def job_of(document: Document) -> Job:
    """The job as one of its documents has it; what older ones lack has its default."""
    body = dict(document.body)
    attempt, failure, wish = body.pop("attempt"), body.pop("failure"), body.pop("wish", None)
    return Job(
        **body
        | {
            "state": JobState(body["state"]),
            "history": tuple(PastAttempt.read(past) for past in body.get("history", ())),
            "wish": Wish(**wish | {"priority": Priority(wish["priority"])}) if wish else PLAIN,
        },
        attempt=Attempt(**attempt) if attempt else None,
        failure=JobFailure(**failure) if failure else None,
        etag=document.etag,
    )
