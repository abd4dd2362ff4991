"""What is held while a decision is made: room, job slots and quotas, each with a way to ask "what if"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from terroir.training.scheduling.model import (
    GPU_UNITS,
    Demand,
    RunningJob,
    Situation,
    WaitingJob,
    WaitReason,
)
from terroir.training.scheduling.space import Grant, space_of


class Holdings:
    """Everything that running jobs hold, and what this decision gives away."""

    def __init__(self, situation: Situation) -> None:
        self._capacity = situation.capacity
        self._quotas = situation.quotas
        self.space = space_of(situation.capacity)
        self._jobs: Counter[str] = Counter()
        """Jobs by team."""
        self._units: Counter[str] = Counter()
        """GPU units by team."""
        self._running = 0
        self._grants: dict[str, Grant] = {}
        self._full: list[Demand] = []
        """Demands for which there is no room; it only gets less, except within `without`."""
        self._impossible: dict[tuple[str, Demand], str] = {}
        for job in sorted(situation.running, key=_certain_first):
            self._grants[job.id] = self.space.occupy(job.demand, job.nodes)
            self._count(job.team, job.demand)

    def grant(self, job_id: str) -> Grant:
        """The room of a job that runs."""
        return self._grants[job_id]

    def obstacles(self, job: WaitingJob) -> list[WaitReason]:
        """Everything that keeps a job from running now; empty if it can run."""
        found = []
        if self._exceeds_quota(job):
            found.append(WaitReason.QUOTA)
        if self._running >= self._capacity.max_jobs:
            found.append(WaitReason.JOB_LIMIT)
        if not self._has_room(job.demand):
            found.append(WaitReason.CAPACITY)
        return found

    def impossible(self, job: WaitingJob) -> str:
        """Why a job could not run even if nothing else did; empty if it could."""
        if (known := self._impossible.get((job.team, job.demand))) is None:
            known = self._impossible[job.team, job.demand] = self._never(job)
        return known

    def _never(self, job: WaitingJob) -> str:
        quota, wanted = self._quotas.of(job.team), job.demand.total_gpus
        if quota.gpus is not None and wanted > quota.gpus:
            return f"needs {job.demand}, and the quota of team {job.team} is {quota.gpus:g} GPUs"
        if quota.jobs == 0:
            return f"the quota of team {job.team} is no job"
        if not self.space.could_fit(job.demand):
            return f"needs {job.demand}, more than the whole cluster has for it"
        return ""

    def take(self, job: WaitingJob) -> None:
        """Give a job what it needs; it must have no obstacles."""
        grant = self.space.take(job.demand, job.avoid_nodes)
        assert grant is not None, job.id
        self._grants[job.id] = grant
        self._count(job.team, job.demand)

    def hold(self, job: WaitingJob, *, room: bool) -> None:
        """Keep for a job what it can't have yet: its part of the quota, and where it would fit next its room."""
        self._count(job.team, job.demand)
        if room:
            self.space.hold(job.demand)
        else:
            self._running -= 1  # what waits for its own team's quota keeps nothing from others

    @contextmanager
    def without(self, jobs: Iterable[RunningJob]) -> Iterator[None]:
        """As if some running jobs had ended. What is taken inside stays taken: it lies over theirs until they end."""
        jobs = list(jobs)
        grants = [self._grants[job.id] for job in jobs]
        full, self._full = self._full, []
        self.space.release(grants)
        for job in jobs:
            self._count(job.team, job.demand, -1)
        try:
            yield
        finally:
            for job in jobs:
                self._count(job.team, job.demand)
            self.space.retake(grants)
            self._full = full

    def told(self, reason: WaitReason, job: WaitingJob) -> str:
        """An obstacle in words."""
        quota = self._quotas.of(job.team)
        if reason is WaitReason.JOB_LIMIT:
            return f"{self._running} jobs run or are about to, of at most {self._capacity.max_jobs} (max_running_jobs)"
        if reason is not WaitReason.QUOTA:
            return f"no room now for {job.demand}"
        if quota.jobs is not None and self._jobs[job.team] >= quota.jobs:
            return f"team {job.team} has {self._jobs[job.team]} of its {quota.jobs} jobs"
        used = self._units[job.team] / GPU_UNITS
        return f"team {job.team} holds {used:g} of its {quota.gpus:g} GPUs, this job needs {job.demand.total_gpus:g}"

    def _exceeds_quota(self, job: WaitingJob) -> bool:
        quota = self._quotas.of(job.team)
        if quota.jobs is not None and self._jobs[job.team] >= quota.jobs:
            return True
        if quota.gpus is None or not job.demand.units:
            return False
        return self._units[job.team] + job.demand.total_units > round(quota.gpus * GPU_UNITS)

    def _has_room(self, demand: Demand) -> bool:
        if any(full.within(demand) for full in self._full):
            return False
        if self.space.fits(demand):
            return True
        self._full.append(demand)
        return False

    def _count(self, team: str, demand: Demand, sign: int = 1) -> None:
        self._running += sign
        self._jobs[team] += sign
        self._units[team] += sign * demand.total_units


def _certain_first(job: RunningJob) -> tuple[bool, float, float, str]:
    """Jobs whose nodes are known, then large ones: so those that are placed by guess find the room that Ray found."""
    return (not job.nodes, -job.demand.gpus, job.since, job.id)
