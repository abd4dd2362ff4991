"""In which order jobs are looked at: classes first, then the team that has had least, then who waits longest."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.fairness import Shares
from terroir.training.scheduling.model import LEVELS, Rules, WaitingJob

_TOP = max(LEVELS.values())


def level(job: WaitingJob, now: float, rules: Rules) -> int:
    """The class that a job competes with other teams in: its own, and one more for each time that it has aged."""
    aged = int(max(0.0, now - job.waiting_since) / rules.aging_seconds)
    return min(_TOP, LEVELS[job.priority] + aged)


def ranked(jobs: Sequence[WaitingJob], shares: Shares, now: float, rules: Rules) -> Iterator[WaitingJob]:
    """Yield each job once; shares that change on the way change who comes next.

    Within a team the order is strict: classes, then creation, so ageing never lets a low job pass a high one of the
    same team. Between teams a job that room was made for goes first; then the level of each team's next job decides,
    then the share.
    """
    queues: dict[str, list[WaitingJob]] = {}
    for job in sorted(jobs, key=_in_team, reverse=True):
        queues.setdefault(job.team, []).append(job)

    def entry(team: str) -> tuple[bool, int, float, float, str]:
        job = queues[team][-1]
        return (not job.promised, -level(job, now, rules), shares.of(team), job.created, team)

    heads = [entry(team) for team in queues]
    heapq.heapify(heads)
    while heads:
        *_, team = heapq.heappop(heads)
        yield queues[team].pop()
        # Only the team whose turn it was can have got more, so the others' entries still hold.
        if queues[team]:
            heapq.heappush(heads, entry(team))


def outranks(priority: Priority, other: Priority) -> bool:
    """Whether one class may take the place of another."""
    return LEVELS[priority] > LEVELS[other]


def _in_team(job: WaitingJob) -> tuple[int, bool, float, str]:
    return (-LEVELS[job.priority], not job.promised, job.created, job.id)
