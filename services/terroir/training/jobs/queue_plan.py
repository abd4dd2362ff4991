"""What the queue tells the scheduling policy: jobs, cluster, quotas and past use as one situation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from terroir.training.jobs.attempts import Outcome
from terroir.training.jobs.documents import Job
from terroir.training.scheduling.fairness import UsageLedger
from terroir.training.scheduling.model import (
    Capacity,
    Demand,
    Node,
    Quotas,
    Rules,
    RunningJob,
    Situation,
    Usage,
    WaitingJob,
)

_AVOIDED: Final = 3
"""Nodes of as many latest losses are avoided: more would rule out a whole cluster that had one bad day."""


@dataclass(frozen=True)
class QueueLimits:
    """What an operator allows."""

    capacity: Capacity
    quotas: Quotas = field(default_factory=Quotas)
    rules: Rules = field(default_factory=Rules)
    demand: Demand = field(default_factory=Demand)
    """Of one worker of a job that does not say it."""
    half_life_seconds: float = 24 * 3600.0
    """Use of so long ago counts half."""
    max_retries: int = 20
    """Over the key of the same name."""
    retry_backoff_seconds: float = 10.0
    """Pause after the first loss; it doubles with each."""
    retry_backoff_limit_seconds: float = 600.0
    make_room_seconds: float = 600.0
    """An attempt that was asked to make room has this long before Ray ends it."""
    grows: bool = True
    """Whether the cluster grows with what is asked of it; else its nodes bound what is given to it."""

    def retries(self, job: Job) -> int:
        """New attempts that a job gets after losses."""
        return min(job.wish.max_retries, self.max_retries)

    def pause_seconds(self, losses: int) -> float:
        """Back-off after so many losses."""
        return min(self.retry_backoff_limit_seconds, self.retry_backoff_seconds * 2.0 ** (losses - 1))


class QueuePlan:
    """Makes situations; remembers which past attempts are in the ledger."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._ledger = UsageLedger(limits.half_life_seconds)
        self._counted: dict[str, int] = {}
        """By job: attempts of its history that are in the ledger."""

    def learn(self, jobs: Iterable[Job]) -> None:
        """Add attempts that are over to their teams' past use; each is added once."""
        for job in jobs:
            known = self._counted.get(job.id, 0)
            for past in job.history[known:]:
                if past.since:
                    demand = job.wish.demand(self._limits.demand)
                    self._ledger.add(job.wish.team, demand, seconds(past.since), seconds(past.ended))
            if len(job.history) > known:
                self._counted[job.id] = len(job.history)

    def situation(self, jobs: Iterable[Job], now: float, nodes: tuple[Node, ...] = ()) -> Situation:
        """Of jobs that have not ended, on nodes that are known, if any are."""
        jobs = list(jobs)
        waiting = [self._waiting(job) for job in jobs if not job.dispatched]
        running = [self._running(job) for job in jobs if job.dispatched]
        usage: dict[str, Usage] = self._ledger.usage(now, running)
        limits = self._limits
        capacity = replace(limits.capacity, nodes=nodes) if nodes else limits.capacity
        return Situation(now, waiting, running, capacity, limits.quotas, usage, limits.rules)

    def _waiting(self, job: Job) -> WaitingJob:
        created = seconds(job.created_at)
        return WaitingJob(
            job.id,
            job.wish.team,
            job.wish.priority,
            job.wish.demand(self._limits.demand),
            created=created,
            waiting_since=seconds(job.history[-1].ended) if job.history else created,
            not_before=seconds(job.not_before) if job.not_before else 0.0,
            avoid_nodes=frozenset(avoided(job)),
        )

    def _running(self, job: Job) -> RunningJob:
        attempt = job.attempt
        return RunningJob(
            job.id,
            job.wish.team,
            job.wish.priority,
            job.wish.demand(self._limits.demand),
            since=seconds(attempt.since) if attempt and attempt.since else seconds(job.created_at),
            preemptible=job.wish.preemptible,
            nodes=(attempt.node_id,) if attempt and attempt.node_id else (),
            stopping=bool(job.preempt_for) or job.cancel_requested,
            stopping_for=job.preempt_for,
        )


def seconds(text: str) -> float:
    """Since the epoch, of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def avoided(job: Job) -> tuple[str, ...]:
    """Nodes that the last attempts of a job were lost on, the newest first."""
    lost = [past.node_id for past in job.history if past.outcome is Outcome.LOST and past.node_id]
    return tuple(dict.fromkeys(reversed(lost[-_AVOIDED:])))
