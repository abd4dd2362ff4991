"""Fair shares: what each team has held of late, and whose turn it is.

A team's share is its dominant one (Ghodsi et al., Dominant Resource Fairness, NSDI 2011) over its weight. Past use
counts with a half-life, as in Slurm's multifactor priority: who held much waits a little, and it is soon forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from terroir.training.scheduling.model import Demand, Quotas, RunningJob, Situation, Usage


@dataclass
class _Decayed:
    """Resource-seconds as they weigh at `at`."""

    at: float
    cpus: float = 0.0
    gpus: float = 0.0

    def add(self, demand: Demand, weight: float) -> None:
        self.cpus += demand.total_cpus * weight
        self.gpus += demand.total_gpus * weight

    def moved(self, at: float, decay: float) -> _Decayed:
        """The same at another time."""
        factor = math.exp(-(at - self.at) * decay)
        return _Decayed(at, self.cpus * factor, self.gpus * factor)


class UsageLedger:
    """Sums up who held what when; the order in which that is heard makes no difference."""

    def __init__(self, half_life_seconds: float) -> None:
        self._decay = math.log(2) / half_life_seconds
        self._teams: dict[str, _Decayed] = {}

    def add(self, team: str, demand: Demand, start: float, end: float) -> None:
        """A gang was held from `start` to `end`, seconds since the epoch."""
        if end <= start:
            return
        total = self._teams.get(team, _Decayed(end))
        total = total.moved(max(total.at, end), self._decay)
        total.add(demand, self._weight(start, end, total.at))
        self._teams[team] = total

    def usage(self, now: float, running: Iterable[RunningJob] = ()) -> dict[str, Usage]:
        """Means over the past, the latest weighing most; what still runs counts up to now."""
        totals = {team: total.moved(now, self._decay) for team, total in self._teams.items()}
        for job in running:
            total = totals.setdefault(job.team, _Decayed(now))
            total.add(job.demand, self._weight(min(job.since, now), now, now))
        return {team: Usage(total.cpus * self._decay, total.gpus * self._decay) for team, total in totals.items()}

    def _weight(self, start: float, end: float, at: float) -> float:
        """Seconds from `start` to `end`, each as it weighs at `at`."""
        return (math.exp(-(at - end) * self._decay) - math.exp(-(at - start) * self._decay)) / self._decay


class Shares:
    """Every team's share while a decision is made; what is dispatched counts at once."""

    def __init__(self, situation: Situation) -> None:
        self._quotas: Quotas = situation.quotas
        self._usage: Mapping[str, Usage] = situation.usage
        self._cpus, self._gpus = _totals(situation)
        self._held: dict[str, tuple[float, float]] = {}
        for job in situation.running:
            self.add(job.team, job.demand)

    def add(self, team: str, demand: Demand) -> None:
        """A team holds more."""
        cpus, gpus = self._held.get(team, (0.0, 0.0))
        self._held[team] = (cpus + demand.total_cpus, gpus + demand.total_gpus)

    def of(self, team: str) -> float:
        """A team's share now and of late, over its weight; the lowest goes first."""
        held, usage = self._held.get(team, (0.0, 0.0)), self._usage.get(team, Usage())
        now = max(held[0] / self._cpus, held[1] / self._gpus)
        of_late = max(usage.cpus / self._cpus, usage.gpus / self._gpus)
        return (now + of_late) / self._quotas.of(team).weight


def _totals(situation: Situation) -> tuple[float, float]:
    """Cores and GPUs in all; on a cluster without known bounds all that is wanted, as only ratios matter."""
    capacity = situation.capacity
    if capacity.nodes is not None:
        cpus, gpus = sum(node.cpus for node in capacity.nodes), float(sum(node.gpus for node in capacity.nodes))
    else:
        demands = [job.demand for job in situation.running] + [job.demand for job in situation.waiting]
        cpus = sum(demand.total_cpus for demand in demands)
        gpus = capacity.max_gpus or sum(demand.total_gpus for demand in demands)
    return cpus or math.inf, gpus or math.inf
