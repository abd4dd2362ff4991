"""Invented styles, teams and faults: drawn from a seed, so that every run and every policy sees the same."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.model import Demand, Node, Quota, Quotas

_T = TypeVar("_T")
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR

TEAMS: Final = {"studio": 0.5, "brands": 0.3, "research": 0.2}
"""Teams, and their parts of the jobs."""
QUOTAS: Final = Quotas({"studio": Quota(weight=2), "brands": Quota(weight=1), "research": Quota(gpus=32, weight=1)})
_CLASSES: Final = {
    "studio": {Priority.HIGH: 0.10, Priority.NORMAL: 0.75, Priority.LOW: 0.15},
    "brands": {Priority.HIGH: 0.15, Priority.NORMAL: 0.75, Priority.LOW: 0.10},
    "research": {Priority.NORMAL: 0.40, Priority.LOW: 0.60},
}
_GPUS: Final = {0.5: 0.20, 1.0: 0.50, 2.0: 0.15, 4.0: 0.10, 8.0: 0.05}
_HOURS_MEAN, _HOURS_SPREAD = 5.9, 0.8
"""Of a log-normal distribution: of the mean, and the deviation of the logarithm."""
_BY_DAY: Final = 0.75
"""Part of the jobs that come between 8 and 20 o'clock; Saturday and Sunday get half of a working day."""
_NODE_MEAN_DAYS: Final = 14.0
"""Between two failures of one node."""
_DOWN_HOURS: Final = (0.25, 4.0)


@dataclass(frozen=True)
class Style:
    """One job: what it asks for, and how long it runs if nothing stops it."""

    id: str
    team: str
    priority: Priority
    demand: Demand
    created: float
    """Seconds since the week began."""
    seconds: float


@dataclass(frozen=True)
class Outage:
    """One node is gone for a while."""

    node: str
    at: float
    until: float


@dataclass(frozen=True)
class World:
    """Everything that is given before anything is decided."""

    styles: tuple[Style, ...]
    nodes: tuple[Node, ...]
    outages: tuple[Outage, ...]
    seconds: float
    quotas: Quotas = QUOTAS


def world(seed: int = 1, styles: int = 1000, nodes: int = 8, days: float = 7.0) -> World:
    """Nodes with 8 GPUs and 64 cores each."""
    rng = random.Random(seed)
    machines = tuple(Node(f"node-{number}", 64.0, 8) for number in range(nodes))
    made = sorted((_style(rng, number, days) for number in range(styles)), key=lambda style: style.created)
    outages = [outage for machine in machines for outage in _outages(rng, machine.id, days * DAY)]
    return World(tuple(made), machines, tuple(sorted(outages, key=lambda outage: outage.at)), days * DAY)


def flooded(quiet: World, styles: int = 300, *, day: int = 1, hour: int = 9) -> World:
    """The same week in which one team hands in many jobs at once on a Tuesday morning."""
    rng, at = random.Random(styles), day * DAY + hour * HOUR
    flood = [
        replace(_style(rng, number, 1.0), id=f"flood-{number:04d}", team="brands", priority=Priority.NORMAL, created=at)
        for number in range(styles)
    ]
    return replace(quiet, styles=tuple(sorted([*quiet.styles, *flood], key=lambda style: style.created)))


def _style(rng: random.Random, number: int, days: float) -> Style:
    team = _drawn(rng, TEAMS)
    hours = rng.lognormvariate(math.log(_HOURS_MEAN) - _HOURS_SPREAD**2 / 2, _HOURS_SPREAD)
    demand = Demand(1, 4.0, _drawn(rng, _GPUS))
    priority = _drawn(rng, _CLASSES[team])
    return Style(f"style-{number:04d}", team, priority, demand, _moment(rng, days), max(300.0, hours * HOUR))


def _moment(rng: random.Random, days: float) -> float:
    """When somebody submits: by day, and on working days, more than else. The week begins on a Monday."""
    while True:
        day = rng.uniform(0, days)
        if int(day) % 7 < 5 or rng.random() < 0.5:
            break
    hour = 8 + 12 * rng.random() if rng.random() < _BY_DAY else (20 + 12 * rng.random()) % 24
    return min(days * DAY - 1, int(day) * DAY + hour * HOUR)


def _outages(rng: random.Random, node: str, seconds: float) -> Sequence[Outage]:
    found, at = [], rng.expovariate(1 / (_NODE_MEAN_DAYS * DAY))
    while at < seconds:
        until = at + rng.uniform(*_DOWN_HOURS) * HOUR
        found.append(Outage(node, at, until))
        at = until + rng.expovariate(1 / (_NODE_MEAN_DAYS * DAY))
    return found


def _drawn(rng: random.Random, weights: Mapping[_T, float]) -> _T:
    return rng.choices(list(weights), list(weights.values()))[0]
