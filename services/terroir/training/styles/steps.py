"""The steps of a registration. Each may be repeated from its beginning: whoever did it before left the same behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

from terroir.common.clock import Clock
from terroir.common.errors import AlreadyExists, NotFound, Unavailable
from terroir.common.principal import Principal, Role
from terroir.training.engine.ports import TrainProgress
from terroir.training.errors import JobNotFound, NothingToTrain
from terroir.training.jobs.documents import Job, Jobs, JobState, job_id_of
from terroir.training.jobs.submissions import Submissions
from terroir.training.styles.configuration import with_dataset
from terroir.training.styles.errors import DatasetDiffers, NothingPublished
from terroir.training.styles.model import OF_THE_JOB, PHASES, Phase, Registration, State
from terroir.training.styles.ports import DatasetHouse, ImportSources, NewDataset, Progress, StyleShelf

ALIAS: Final = "staging"
_LAG_SECONDS: Final = 10.0
"""Replicas of the registry see each other's writes within a second."""


@dataclass(frozen=True)
class Went:
    """A step's outcome: the phase to enter (None: this one goes on), or the end; and what was found out."""

    phase: Phase | None = None
    end: State | None = None
    facts: tuple[tuple[str, Any], ...] = ()


STAYS: Final = Went()


class JobFailed(Exception):
    """The registration's job failed; carries the job's own reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Steps:
    """What happens in each phase."""

    datasets: DatasetHouse
    shelf: StyleShelf
    sources: ImportSources
    submissions: Submissions
    jobs: Jobs
    job_added: Callable[[str], None]
    """Tells the queue that a job may have something to do."""
    clock: Clock

    def take(self, registration: Registration, progress: Progress) -> Went:
        """Do the step of the registration's phase; raises what the services raise, and JobFailed.

        `progress` hears of pictures; what it raises ends the step.
        """
        if registration.phase in OF_THE_JOB:
            return self._job(registration)
        return {
            Phase.IMPORTING: self._import,
            Phase.CAPTIONING: self._caption,
            Phase.FREEZING: self._freeze,
            Phase.STAGING: self._stage,
        }[registration.phase](registration, progress)

    def _import(self, registration: Registration, progress: Progress) -> Went:
        wish = registration.wish
        if wish.import_source:
            self._make_dataset(registration)
            with self.sources.opened(wish.import_source) as folder:
                self.datasets.import_folder(wish.dataset, folder, progress)
        usable = self.datasets.usable(wish.dataset)
        if not usable.count:
            kept_out = ", ".join(f"{count} by {gate}" for gate, count in usable.kept_out_by.items())
            raise NothingToTrain(
                f"none of the {usable.of} pictures of datasets/{wish.dataset} passed the gates"
                + (f" (kept out: {kept_out})" if kept_out else "")
                + f"; see why (terroir dataset images {wish.dataset}), import better ones and register again"
            )
        return Went(Phase.CAPTIONING)

    def _make_dataset(self, registration: Registration) -> None:
        wish = registration.wish
        new = NewDataset(wish.dataset, wish.region, wish.rights_statement, wish.trigger_word, wish.license)
        try:
            self.datasets.create(new, registration.name)
        except AlreadyExists:
            facts = self.datasets.find(wish.dataset)
            if facts is not None:
                ensure_same(facts.region, wish.region, facts.rights_statement, wish.rights_statement, wish.dataset)

    def _caption(self, registration: Registration, progress: Progress) -> Went:
        self.datasets.caption(registration.wish.dataset, progress)
        return Went(Phase.FREEZING)

    def _freeze(self, registration: Registration, _progress: Progress) -> Went:
        version = self.datasets.freeze(registration.wish.dataset, registration.name)
        return Went(Phase.QUEUED, facts=(("dataset_version", version), ("job", job_id_of(registration.name))))

    def _job(self, registration: Registration) -> Went:
        job = self._made_job(registration)
        if job.state is JobState.FAILED:
            failure = job.failure
            assert failure is not None, "a failed job says why"
            raise JobFailed(failure.reason, f"{job.name} failed: {failure.message}")
        if job.state is JobState.CANCELLED:
            return Went(end=State.CANCELLED)
        if job.state is JobState.SUCCEEDED:
            if not job.adapter_version:
                raise NothingPublished(f"{job.name} ended without a version (terroir train logs {job.name} says why)")
            return Went(Phase.STAGING, facts=(("adapter_version", job.adapter_version),))
        ahead = observed_phase(job, self.jobs.progress(job))
        return Went(ahead) if PHASES.index(ahead) > PHASES.index(registration.phase) else STAYS

    def made_job(self, registration: Registration) -> Job | None:
        """The registration's job, once there is one."""
        try:
            return self.jobs.get(registration.job) if registration.job else None
        except JobNotFound:
            return None

    def _made_job(self, registration: Registration) -> Job:
        """The job, made by the first who asks: its identifier follows from the registration's name."""
        if (made := self.made_job(registration)) is not None:
            return made
        wish = registration.wish
        # What the caller may do was checked when the registration began; its regions are not kept.
        caller = Principal(wish.creator, frozenset({Role.STYLIST}))
        job = self.submissions.create(
            with_dataset(wish.config_yaml, registration.dataset_version),
            f"adapters/{wish.style}",
            registration.name,
            caller,
            wish.traceparent,
        )
        self.job_added(job.id)
        return job

    def _stage(self, registration: Registration, _progress: Progress) -> Went:
        wish = registration.wish
        try:
            metrics = self.shelf.metrics(registration.adapter_version)
            self.shelf.set_alias(
                wish.style,
                ALIAS,
                registration.adapter_version,
                reason=f"registered by {wish.creator}: {registration.name}"[:500],
                request_id=f"{registration.name}/{ALIAS}",
            )
            if wish.assign_region:
                self.shelf.assign(wish.region, f"{wish.style}@{ALIAS}", registration.name)
        except NotFound as error:
            self._ensure_not_lagging(registration, error)
        return Went(end=State.SUCCEEDED, facts=(("metrics", dict(metrics)),))

    def _ensure_not_lagging(self, registration: Registration, error: NotFound) -> NoReturn:
        begun = datetime.fromisoformat(registration.phases[-1].time)
        if (self.clock.now() - begun).total_seconds() < _LAG_SECONDS:
            raise Unavailable(f"the registry does not know of it yet: {error}") from error
        raise error


def observed_phase(job: Job, progress: TrainProgress | None) -> Phase:
    """What a job does, in the words of a registration."""
    if job.state is JobState.QUEUED:
        return Phase.QUEUED
    return {"judging": Phase.JUDGING, "publishing": Phase.PUBLISHING, "done": Phase.PUBLISHING}.get(
        progress.phase if progress else "", Phase.TRAINING
    )


def ensure_same(region: str, wanted_region: str, rights: str, wanted_rights: str, dataset: str) -> None:
    """Raise DatasetDiffers unless a dataset lies in the region and has the rights statement that were told."""
    if region.casefold() != wanted_region.casefold():
        raise DatasetDiffers(
            f"datasets/{dataset} lies in {region or 'no region'}, the style shall lie in {wanted_region}; a dataset's "
            "region never changes: import the pictures into another dataset, or name its region"
        )
    if wanted_rights and rights != wanted_rights:
        raise DatasetDiffers(
            f"datasets/{dataset} has another rights statement ({rights[:80]!r}) than was told; a dataset's statement "
            "never changes: say the same, or import the pictures into another dataset"
        )
