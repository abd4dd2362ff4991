"""Situations for the scheduling policy: written down, and drawn at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.model import (
    GPU_UNITS,
    Capacity,
    Decision,
    Demand,
    Node,
    Quota,
    Quotas,
    RunningJob,
    Situation,
    Usage,
    WaitingJob,
)

NOW = 100_000.0
LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH


def gpus(each: float, workers: int = 1) -> Demand:
    """A demand that its GPUs alone decide."""
    return Demand(workers, 1.0, each)


def waits(
    job_id: str, demand: Demand | None = None, *, team: str = "a", priority: Priority = NORMAL, waited: float = 0.0
) -> WaitingJob:
    """A job that has waited for some seconds."""
    since = NOW - waited
    return WaitingJob(job_id, team, priority, demand or gpus(1), since, since)


def runs(
    job_id: str, demand: Demand | None = None, *, team: str = "a", priority: Priority = NORMAL, node: str = "",
    ran: float = 10_000.0, preemptible: bool = True, stopping: bool = False,
) -> RunningJob:  # fmt: skip
    """A job that has run for some seconds, on a node that is known or not."""
    nodes = (node,) if node else ()
    return RunningJob(job_id, team, priority, demand or gpus(1), NOW - ran, preemptible, nodes, stopping)


def machines(*counts: int, max_jobs: int = 1000) -> Capacity:
    """One node for each count of GPUs, with plenty of cores."""
    return Capacity(max_jobs, tuple(Node(f"n{index}", 64.0, count) for index, count in enumerate(counts)))


def situation(
    waiting: Iterable[WaitingJob] = (), running: Iterable[RunningJob] = (), capacity: Capacity | None = None,
    teams: dict[str, Quota] | None = None, usage: dict[str, Usage] | None = None,
) -> Situation:  # fmt: skip
    """At NOW, on 8 GPUs of one node if nothing else is said."""
    return Situation(
        NOW, list(waiting), list(running), capacity or machines(8), Quotas(teams or {}), usage or {}
    )  # fmt: skip


def started(before: Situation, decision: Decision) -> Situation:
    """What is so a moment after a decision was carried out: dispatched jobs run, victims are stopping."""
    leaving = {each.victim: each.beneficiary for each in decision.preempt}
    by_id = {job.id: job for job in before.waiting}
    running = [
        replace(job, stopping=True, stopping_for=leaving[job.id]) if job.id in leaving else job
        for job in before.running
    ]
    running += [
        RunningJob(job.id, job.team, job.priority, job.demand, before.now)
        for job in (by_id[job_id] for job_id in decision.dispatch)
    ]
    waiting = [job for job in before.waiting if job.id not in set(decision.dispatch)]
    return replace(before, waiting=waiting, running=running)


def units_by_team(running: Sequence[RunningJob]) -> Counter[str]:
    """GPU units that each team holds."""
    held: Counter[str] = Counter()
    for job in running:
        held[job.team] += job.demand.total_units
    return held


def can_pack(demands: Sequence[Demand], nodes: Sequence[Node]) -> bool:
    """Whether these gangs have a place side by side, by trying every choice: an oracle for small cases."""
    free = [(node.cpus, (GPU_UNITS,) * node.gpus) for node in nodes]
    workers = [(each.cpus, each.units) for each in demands for _ in range(each.workers)]
    return _places(sorted(workers, key=lambda worker: (-worker[1], -worker[0])), free, set())


def _places(
    workers: list[tuple[float, int]],
    free: list[tuple[float, tuple[int, ...]]],
    seen: set[tuple[int, tuple[tuple[float, tuple[int, ...]], ...]]],
) -> bool:
    if not workers:
        return True
    state = (len(workers), tuple(sorted(free)))
    if state in seen:
        return False
    seen.add(state)
    cpus, units = workers[0]
    for index, (cores, shares) in enumerate(free):
        if cores + 1e-9 < cpus:
            continue
        for left in _without(shares, units):
            changed = [*free[:index], (cores - cpus, left), *free[index + 1 :]]
            if _places(workers[1:], changed, seen):
                return True
    return False


def _without(shares: tuple[int, ...], units: int) -> set[tuple[int, ...]]:
    if not units:
        return {shares}
    if units >= GPU_UNITS:
        whole = shares.count(GPU_UNITS)
        wanted = units // GPU_UNITS
        rest = tuple(share for share in shares if share != GPU_UNITS)
        return {tuple(sorted((*rest, *(0,) * wanted, *(GPU_UNITS,) * (whole - wanted))))} if whole >= wanted else set()
    return {
        tuple(sorted((*shares[:index], share - units, *shares[index + 1 :])))
        for index, share in enumerate(shares)
        if share >= units
    }


priorities = st.sampled_from(list(Priority))
teams = st.sampled_from(["a", "b", "c"])
demands = st.builds(
    Demand,
    workers=st.integers(1, 3),
    cpus=st.sampled_from([0.5, 1.0, 2.0]),
    gpus=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 4.0]),
)
node_lists = st.lists(st.tuples(st.sampled_from([2.0, 8.0]), st.integers(0, 4)), min_size=1, max_size=3).map(
    lambda kinds: tuple(Node(f"n{index}", cpus, count) for index, (cpus, count) in enumerate(kinds))
)
quotas = st.dictionaries(
    teams,
    st.builds(
        Quota,
        gpus=st.none() | st.sampled_from([0.5, 2.0, 4.0]),
        jobs=st.none() | st.integers(0, 4),
        weight=st.sampled_from([1.0, 3.0]),
    ),
).map(Quotas)
usages = st.dictionaries(teams, st.builds(Usage, st.floats(0, 10), st.floats(0, 10)))


@st.composite
def waiting_jobs(draw: st.DrawFn, most: int = 8) -> list[WaitingJob]:
    """Distinct jobs of any class, age and back-off."""
    count = draw(st.integers(0, most))
    jobs = []
    for index in range(count):
        created = NOW - draw(st.sampled_from([0.0, 10.0, 1_000.0, 50_000.0]))
        since = max(created, NOW - draw(st.sampled_from([0.0, 500.0, 60_000.0])))
        back_off = draw(st.sampled_from([0.0, 0.0, 0.0, NOW + 5]))
        jobs.append(
            WaitingJob(f"w{index}", draw(teams), draw(priorities), draw(demands), created, since, back_off)
        )  # fmt: skip
    return jobs


@st.composite
def possible_situations(draw: st.DrawFn, *, elastic: bool | None = None) -> Situation:
    """What can come about: running jobs are those that the policy itself dispatched before."""
    from terroir.training.scheduling.policy import decide

    grows = draw(st.booleans()) if elastic is None else elastic
    nodes = None if grows else draw(node_lists)
    most = draw(st.none() | st.sampled_from([1.0, 4.0])) if grows else None
    capacity = Capacity(draw(st.sampled_from([1, 3, 100])), nodes, most)
    before = Situation(NOW, draw(waiting_jobs()), [], capacity, draw(quotas), draw(usages))
    running = [
        replace(
            job,
            id=f"r{index}",
            since=NOW - draw(st.sampled_from([0.0, 10_000.0])),
            preemptible=draw(st.booleans()),
            stopping=draw(st.sampled_from([False, False, True])),
        )
        for index, job in enumerate(started(before, decide(before)).running)
    ]
    return replace(before, waiting=draw(waiting_jobs()), running=running)
