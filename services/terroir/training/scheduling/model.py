"""What the scheduling policy is asked and what it answers: plain values without Ray, store or clock.

Times are seconds since the epoch. Names are the field's: gang, fair share, backfill, pre-emption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Final

from terroir.training.config.scheduling_keys import Priority

LEVELS: Final[Mapping[Priority, int]] = MappingProxyType({Priority.LOW: 0, Priority.NORMAL: 1, Priority.HIGH: 2})
"""Classes as numbers; a higher one goes first."""

GPU_UNITS: Final = 10_000
"""Shares of a GPU are counted in ten-thousandths, as Ray does: sums of floats would not come out even."""


@dataclass(frozen=True)
class Demand:
    """What a job needs at the same moment: a gang of equal workers. A share of a GPU is a share of one GPU."""

    workers: int = 1
    cpus: float = 1.0
    """Of each worker."""
    gpus: float = 0.0
    """Of each worker: below 1 a share of one, else whole ones of one node."""

    @property
    def total_cpus(self) -> float:
        """Of all workers."""
        return self.workers * self.cpus

    @property
    def total_gpus(self) -> float:
        """Of all workers."""
        return self.workers * self.gpus

    @cached_property
    def units(self) -> int:
        """GPU units of each worker."""
        return round(self.gpus * GPU_UNITS)

    @cached_property
    def total_units(self) -> int:
        """GPU units of all workers."""
        return self.workers * self.units

    def within(self, other: Demand) -> bool:
        """Whether there is room for this wherever there is room for the other."""
        return self.workers <= other.workers and self.cpus <= other.cpus and self.gpus <= other.gpus

    def __str__(self) -> str:
        """In words for people: `2 workers with 4 GPUs each`."""
        each = f"{self.gpus:g} {'GPU' if self.gpus == 1 else 'GPUs'}" if self.gpus else f"{self.cpus:g} cores"
        return each if self.workers == 1 else f"{self.workers} workers with {each} each"


@dataclass(frozen=True)
class WaitingJob:
    """A job that nobody runs."""

    id: str
    team: str
    priority: Priority
    demand: Demand
    created: float
    waiting_since: float
    """Creation, or the end of the attempt before."""
    not_before: float = 0.0
    """End of the back-off after a fault."""
    avoid_nodes: frozenset[str] = frozenset()
    """Nodes that attempts were lost on; others are better, if there are any."""
    promised: bool = False
    """Others were stopped to make room for it: nobody else shall get that room."""


@dataclass(frozen=True)
class RunningJob:
    """A job that was given to Ray."""

    id: str
    team: str
    priority: Priority
    demand: Demand
    since: float
    """When it was given to Ray."""
    preemptible: bool = True
    nodes: tuple[str, ...] = ()
    """Of its workers, as far as they are known."""
    stopping: bool = False
    """It was asked to stop: what it holds will soon be free."""
    stopping_for: str = ""
    """The job that it makes room for, if it does."""


@dataclass(frozen=True)
class Node:
    """A machine with nothing on it."""

    id: str
    cpus: float
    gpus: int = 0


@dataclass(frozen=True)
class Capacity:
    """What there is. Without nodes the cluster is elastic: it grows with what is asked of it, up to the quotas."""

    max_jobs: int
    """Jobs that may be given to Ray at once."""
    nodes: tuple[Node, ...] | None = None
    max_gpus: float | None = None
    """How far an elastic cluster grows; None: nobody knows."""


@dataclass(frozen=True)
class Quota:
    """What a team may hold at once, and its part when all want more than there is."""

    gpus: float | None = None
    """None: no limit."""
    jobs: int | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Quotas:
    """All teams' quotas."""

    teams: Mapping[str, Quota] = field(default_factory=dict)
    default: Quota = field(default_factory=Quota)

    def of(self, team: str) -> Quota:
        """A team's own, or the default."""
        return self.teams.get(team, self.default)


@dataclass(frozen=True)
class Usage:
    """What a team has held of late: the exponentially weighted mean, so one number replaces a history."""

    cpus: float = 0.0
    gpus: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What an operator may tune."""

    aging_seconds: float = 4 * 3600.0
    """A waiting job competes with other teams as one class higher after each of these."""
    reserve_after_seconds: float = 900.0
    """A job that does not fit may be passed by smaller ones for this long; then room is kept for it."""
    min_run_seconds: float = 300.0
    """A job that runs is left alone at least this long."""


@dataclass(frozen=True)
class Situation:
    """Everything that a decision depends on."""

    now: float
    waiting: Sequence[WaitingJob]
    running: Sequence[RunningJob]
    capacity: Capacity
    quotas: Quotas = field(default_factory=Quotas)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)


class WaitReason(StrEnum):
    """Why a job waits."""

    BACK_OFF = "BACK_OFF"
    """An attempt was lost a moment ago."""
    QUOTA = "QUOTA"
    """Its team holds what it may."""
    JOB_LIMIT = "JOB_LIMIT"
    """As many jobs run as may."""
    CAPACITY = "CAPACITY"
    """No room on the cluster."""
    RESERVED = "RESERVED"
    """What is free is kept for a job that goes before it."""
    PREEMPTING = "PREEMPTING"
    """A job that makes room for it still saves its state."""
    UNSATISFIABLE = "UNSATISFIABLE"
    """It will never fit, unless quota or cluster grow."""


@dataclass(frozen=True)
class Wait:
    """Why a job waits, and how many wait before it."""

    position: int
    """From 1."""
    reason: WaitReason
    detail: str
    """In words, with values and limits."""


@dataclass(frozen=True)
class Preemption:
    """One job that shall make room for another."""

    victim: str
    beneficiary: str


@dataclass(frozen=True)
class Decision:
    """What to do now. Everything that is not named goes on as it is."""

    dispatch: tuple[str, ...] = ()
    """Identifiers of waiting jobs, most urgent first."""
    preempt: tuple[Preemption, ...] = ()
    waits: Mapping[str, Wait] = field(default_factory=dict)
    """Of every waiting job that is not dispatched, in order."""
