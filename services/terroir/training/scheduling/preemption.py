"""Which running jobs make room for a more urgent one: none that need not, and those that lose least."""

from __future__ import annotations

from collections.abc import Sequence

from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.holdings import Holdings
from terroir.training.scheduling.model import LEVELS, RunningJob, Situation, WaitingJob
from terroir.training.scheduling.ranking import outranks
from terroir.training.scheduling.space import NodeSpace


def candidates(priority: Priority, situation: Situation) -> list[RunningJob]:
    """Jobs that may be asked to make room for one of this class: of a lower one, willing, and running long enough.

    Cheapest first.
    """
    ripe = situation.now - situation.rules.min_run_seconds
    able = [
        each
        for each in situation.running
        if each.preemptible and not each.stopping and each.since <= ripe and outranks(priority, each.priority)
    ]
    return sorted(able, key=_cost)


def victims(job: WaitingJob, able: Sequence[RunningJob], holdings: Holdings) -> list[RunningJob] | None:
    """The jobs without which `job` would run, none of them superfluous; None if not even all would do.

    For a job of one worker every node is considered, so that one node is cleared rather than a piece of each.
    """
    with holdings.without(able):
        if holdings.obstacles(job):
            return None
    space = holdings.space
    found: list[list[RunningJob]] = []
    if isinstance(space, NodeSpace) and job.demand.workers == 1:
        for node in space.node_ids:
            if space.could_fit_on(node, job.demand):
                here = [each for each in able if space.on(node, holdings.grant(each.id))]
                found += _enough(job, here, holdings)
    return min(found or _enough(job, able, holdings), key=_total)


def _enough(job: WaitingJob, able: Sequence[RunningJob], holdings: Holdings) -> list[list[RunningJob]]:
    """The first of `able` that are enough, without those that turn out not to be needed; empty if all are too few."""
    chosen: list[RunningJob] = []
    for each in able:
        chosen.append(each)
        if _would_run(job, chosen, holdings):
            break
    else:
        return []
    for each in sorted(chosen, key=_cost, reverse=True):
        fewer = [other for other in chosen if other is not each]
        if _would_run(job, fewer, holdings):
            chosen = fewer
    return [chosen]


def _would_run(job: WaitingJob, gone: Sequence[RunningJob], holdings: Holdings) -> bool:
    with holdings.without(gone):
        return not holdings.obstacles(job)


def _cost(job: RunningJob) -> tuple[int, float, str]:
    """Low classes first; within one the youngest, so that what is nearly done gets done."""
    return (LEVELS[job.priority], -job.since, job.id)


def _total(chosen: Sequence[RunningJob]) -> tuple[int, int, float, list[str]]:
    classes = max(LEVELS[job.priority] for job in chosen)
    return (classes, len(chosen), sum(job.demand.total_gpus for job in chosen), [job.id for job in chosen])
