"""The simulation: events in order of time, and after each one decision of the policy that the service uses too.

What is invented besides jobs and faults: an attempt needs a minute until it trains, a checkpoint is saved every ten
minutes, and half a minute after a job was asked to make room. Workers fail now and then; nodes fail with all on them.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.scheduling.workload import HOUR, Style, World
from terroir.training.scheduling.fairness import UsageLedger
from terroir.training.scheduling.model import (
    Capacity,
    Decision,
    Rules,
    RunningJob,
    Situation,
    WaitingJob,
)
from terroir.training.scheduling.space import Grant, NodeSpace

Policy = Callable[[Situation], Decision]

START_SECONDS: Final = 60.0
CHECKPOINT_SECONDS: Final = 600.0
SAVE_SECONDS: Final = 30.0
_TICK_SECONDS: Final = 300.0
"""Longest time between two decisions."""
_BACK_OFF_SECONDS: Final = 10.0
_WORKER_HOURS: Final = 300.0
"""Mean time between faults of one worker."""
_HALF_LIFE_SECONDS: Final = 24 * HOUR


@dataclass
class Course:
    """What became of one style."""

    style: Style
    done: float = 0.0
    """Seconds of training that are in a checkpoint."""
    started: float | None = None
    """When it ran for the first time."""
    ended: float | None = None
    since: float = 0.0
    """When it began to wait, or to run."""
    not_before: float = 0.0
    losses: int = 0
    preemptions: int = 0
    lost_seconds: float = 0.0
    """Training that was done twice."""
    attempt: int = 0
    avoid: frozenset[str] = frozenset()


@dataclass
class _Running:
    course: Course
    grant: Grant
    nodes: tuple[str, ...]
    since: float
    stopping_for: str = ""


@dataclass(frozen=True)
class Sample:
    """How things stand from one moment to the next."""

    at: float
    held: dict[str, float]
    """GPUs by team."""
    waiting: dict[str, int]
    """Jobs by team that could run now: none in back-off."""
    gpus: float
    """Of nodes that are up."""


@dataclass
class Record:
    """What a run of the simulation leaves."""

    world: World
    courses: dict[str, Course] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    decision_seconds: list[float] = field(default_factory=list)


@dataclass(order=True)
class _Event:
    at: float
    number: int
    act: Callable[[], None] = field(compare=False)


class Week:
    """One run of a world under a policy; `run` may be called once."""

    def __init__(self, world: World, policy: Policy, *, seed: int = 1, rules: Rules | None = None) -> None:
        self._world, self._policy, self._rules = world, policy, rules or Rules()
        self._faults = random.Random(seed)
        self._now = 0.0
        self._events: list[_Event] = []
        self._count = 0
        self._waiting: dict[str, Course] = {}
        self._running: dict[str, _Running] = {}
        self._up = {node.id: node for node in world.nodes}
        self._space = NodeSpace(world.nodes)
        self._ledger = UsageLedger(_HALF_LIFE_SECONDS)
        self._fault_at: dict[str, list[float]] = {}
        self.record = Record(world)

    def run(self) -> Record:
        """Until every style has ended."""
        for style in self._world.styles:
            course = Course(style, since=style.created)
            self.record.courses[style.id] = course
            self._at(style.created, lambda course=course: self._arrive(course))  # type: ignore[misc]  # bound now
        for outage in self._world.outages:
            self._at(outage.at, lambda node=outage.node: self._down(node))  # type: ignore[misc]
            self._at(outage.until, lambda node=outage.node: self._up_again(node))  # type: ignore[misc]
        while self._events:
            self._step()
            if all(course.ended is not None for course in self.record.courses.values()):
                break
        return self.record

    def _step(self) -> None:
        self._now = self._events[0].at
        while self._events and self._events[0].at <= self._now:
            heapq.heappop(self._events).act()
        self._decide()
        self._sample()
        if self._waiting and (not self._events or self._events[0].at > self._now + _TICK_SECONDS):
            self._at(self._now + _TICK_SECONDS, lambda: None)

    def _at(self, at: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, _Event(at, self._count, act))

    def _arrive(self, course: Course) -> None:
        self._waiting[course.style.id] = course

    def _down(self, node: str) -> None:
        del self._up[node]
        for running in [each for each in self._running.values() if node in each.nodes]:
            self._lost(running, node)

    def _up_again(self, node: str) -> None:
        self._up[node] = next(each for each in self._world.nodes if each.id == node)

    def _decide(self) -> None:
        began = time.perf_counter()
        situation = self._situation()
        decision = self._policy(situation)
        self.record.decision_seconds.append(time.perf_counter() - began)
        for each in decision.preempt:
            self._ask(self._running[each.victim], each.beneficiary)
        for job_id in decision.dispatch:
            self._start(self._waiting[job_id])

    def _situation(self) -> Situation:
        waiting = [
            WaitingJob(
                each.style.id, each.style.team, each.style.priority, each.style.demand, each.style.created,
                each.since, each.not_before, each.avoid,
            )
            for each in self._waiting.values()
        ]  # fmt: skip
        running = [
            RunningJob(
                each.course.style.id, each.course.style.team, each.course.style.priority, each.course.style.demand,
                each.since, nodes=each.nodes, stopping=bool(each.stopping_for), stopping_for=each.stopping_for,
            )
            for each in self._running.values()
        ]  # fmt: skip
        capacity = Capacity(10_000, tuple(self._up.values()))
        usage = self._ledger.usage(self._now, running)
        return Situation(self._now, waiting, running, capacity, self._world.quotas, usage, self._rules)

    def _start(self, course: Course) -> None:
        style = course.style
        grant = self._space.take(style.demand, course.avoid | (self._all - self._up.keys()))
        nodes = tuple(self._space.node_ids[part.node] for part in grant.parts) if grant else ()
        if grant is None or any(node not in self._up for node in nodes):
            # Which shares are on which GPU, Ray alone knows: the policy believed in room that is in pieces.
            if grant is not None:
                self._space.release([grant])
            return
        del self._waiting[style.id]
        running = self._running[style.id] = _Running(course, grant, nodes, self._now)
        course.since = self._now
        course.started = self._now if course.started is None else course.started
        course.attempt += 1
        left = style.seconds - course.done + START_SECONDS
        fault = self._fault(course)
        if fault < left:
            self._at(self._now + fault, lambda: self._if_current(running, lambda: self._lost(running, nodes[0])))
        else:
            self._at(self._now + left, lambda: self._if_current(running, lambda: self._end(running)))

    @property
    def _all(self) -> set[str]:
        return {node.id for node in self._world.nodes}

    def _fault(self, course: Course) -> float:
        """Seconds until an attempt's worker fails: the same for the same attempt under every policy."""
        drawn = self._fault_at.setdefault(course.style.id, [])
        while len(drawn) < course.attempt:
            seed = f"{course.style.id}/{len(drawn)}"
            drawn.append(random.Random(seed).expovariate(1 / (_WORKER_HOURS * HOUR)))
        return drawn[course.attempt - 1]

    def _if_current(self, running: _Running, act: Callable[[], None]) -> None:
        if self._running.get(running.course.style.id) is running:
            act()

    def _ask(self, running: _Running, beneficiary: str) -> None:
        running.stopping_for = beneficiary
        self._at(self._now + SAVE_SECONDS, lambda: self._if_current(running, lambda: self._made_room(running)))

    def _made_room(self, running: _Running) -> None:
        course = running.course
        course.preemptions += 1
        course.done = min(course.style.seconds, course.done + self._trained(running))
        self._wait(running)

    def _lost(self, running: _Running, node: str) -> None:
        course, trained = running.course, self._trained(running)
        kept = trained // CHECKPOINT_SECONDS * CHECKPOINT_SECONDS
        course.done += kept
        course.lost_seconds += trained - kept
        course.losses += 1
        course.not_before = self._now + _BACK_OFF_SECONDS
        course.avoid = frozenset({node})
        self._wait(running)
        self._at(course.not_before, lambda: None)

    def _trained(self, running: _Running) -> float:
        return max(0.0, self._now - running.since - START_SECONDS)

    def _wait(self, running: _Running) -> None:
        self._release(running)
        running.course.since = self._now
        self._waiting[running.course.style.id] = running.course

    def _end(self, running: _Running) -> None:
        self._release(running)
        running.course.done = running.course.style.seconds
        running.course.ended = self._now

    def _release(self, running: _Running) -> None:
        style = running.course.style
        del self._running[style.id]
        self._space.release([running.grant])
        self._ledger.add(style.team, style.demand, running.since, self._now)

    def _sample(self) -> None:
        held: dict[str, float] = {}
        for each in self._running.values():
            style = each.course.style
            held[style.team] = held.get(style.team, 0.0) + style.demand.total_gpus
        waiting: dict[str, int] = {}
        for course in self._waiting.values():
            if course.not_before <= self._now:
                waiting[course.style.team] = waiting.get(course.style.team, 0) + 1
        gpus = float(sum(node.gpus for node in self._up.values()))
        self.record.samples.append(Sample(self._now, held, waiting, gpus))


def first_come_first_served(situation: Situation) -> Decision:
    """What the queue did before: strictly in order of creation, without quotas, and nobody passes who does not fit."""
    assert situation.capacity.nodes is not None
    space, dispatch = NodeSpace(situation.capacity.nodes), []
    for running in situation.running:
        space.occupy(running.demand, running.nodes)
    for job in sorted(situation.waiting, key=lambda job: (job.created, job.id)):
        if job.not_before > situation.now:
            continue
        if space.take(job.demand, job.avoid_nodes) is None:
            break
        dispatch.append(job.id)
    return Decision(tuple(dispatch))
