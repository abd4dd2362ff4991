"""Refuses at once what the queue could never give, such as more than there is, and what is for others to ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from terroir.common.errors import PermissionDenied
from terroir.common.principal import Principal
from terroir.training.config.scheduling_keys import Priority
from terroir.training.errors import DemandImpossible
from terroir.training.jobs.queue_plan import QueueLimits
from terroir.training.scheduling.model import Demand
from terroir.training.scheduling.wishes import Wish


@dataclass(frozen=True)
class QueueAdmission:
    """Checks the wishes of new jobs."""

    limits: QueueLimits
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By team: patterns of the principals who may submit for it; others are open to all."""
    urgent: Sequence[str] = ("*",)
    """Patterns of the principals who may submit jobs of the highest class."""

    def ensure_possible(self, wish: Wish) -> None:
        """Raise DemandImpossible for a job that would wait for ever, whatever else runs."""
        demand, quota = wish.demand(self.limits.demand), self.limits.quotas.of(wish.team)
        if demand.gpus > 1 and demand.gpus != int(demand.gpus):
            raise _impossible(
                f"gpus {demand.gpus:g}: a worker gets a share of one GPU or whole ones (set gpus below 1, or "
                f"{int(demand.gpus)} or {int(demand.gpus) + 1})",
                "GPUS_NOT_WHOLE",
            )
        wanted = _told(demand)
        if quota.jobs == 0 or (quota.gpus is not None and demand.total_gpus > quota.gpus):
            allowed = "no job" if quota.jobs == 0 else f"{quota.gpus:g} GPUs"
            raise _impossible(
                f"{wanted}, and the quota of team {wish.team} is {allowed}: it would never run (lower gpus or "
                "num_workers, or ask an operator for more: TERROIR_TRAINING_TEAM_QUOTAS)",
                "QUOTA_TOO_SMALL",
            )
        most = self.limits.capacity.max_gpus
        if most is not None and demand.total_gpus > most:
            raise _impossible(
                f"{wanted}, and all jobs together may hold {most:g} GPUs: it would never run (lower gpus or "
                "num_workers, or ask an operator: TERROIR_TRAINING_MAX_GPUS)",
                "CLUSTER_TOO_SMALL",
            )

    def ensure_allowed(self, wish: Wish, principal: Principal) -> None:
        """Raise PermissionDenied: NOT_OF_THE_TEAM, or HIGH_PRIORITY_DENIED for a class that is for others."""
        if not _among(principal, self.members.get(wish.team, ("*",))):
            raise PermissionDenied(
                f"{principal.name} may not submit for team {wish.team}: it is none of its members (leave out `team`, "
                "or ask an operator: TERROIR_TRAINING_TEAM_MEMBERS)",
                reason="NOT_OF_THE_TEAM",
                metadata={"principal": principal.name, "team": wish.team},
            )
        if wish.priority is Priority.HIGH and not _among(principal, self.urgent):
            raise PermissionDenied(
                f"{principal.name} may not submit jobs of priority high (leave out `priority`, or ask an operator: "
                "TERROIR_TRAINING_HIGH_PRIORITY_MEMBERS)",
                reason="HIGH_PRIORITY_DENIED",
                metadata={"principal": principal.name},
            )


def _among(principal: Principal, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(principal.name, pattern) for pattern in patterns)


def _told(demand: Demand) -> str:
    each = f"gpus {demand.gpus:g}"
    return each if demand.workers == 1 else f"{each} of each of {demand.workers} workers"


def _impossible(message: str, reason: str) -> DemandImpossible:
    return DemandImpossible(message, reason=reason, field="gpus")
