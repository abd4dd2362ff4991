"""What a job asks of the queue, as its configuration says it; kept with the job, so that no tick reads YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from terroir.training.config import TrainConfig
from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.model import Demand

DEFAULT_TEAM: Final = "default"
"""Of jobs that name none."""


@dataclass(frozen=True)
class Wish:
    """The scheduling keys of one job; the defaults are those of jobs from before they were kept."""

    team: str = DEFAULT_TEAM
    priority: Priority = Priority.NORMAL
    workers: int = 1
    gpus: float | None = None
    """Of each worker; None: the operator's default."""
    preemptible: bool = True
    max_retries: int = 3

    def demand(self, default: Demand) -> Demand:
        """What is asked of the cluster, where the operator's default is what one worker gets."""
        return Demand(self.workers, default.cpus, default.gpus if self.gpus is None else self.gpus)


PLAIN: Final = Wish()
"""Of a job that asks for nothing."""


def wish_of(config: TrainConfig) -> Wish:
    """The wish of a configuration."""
    return Wish(
        team=config.team or DEFAULT_TEAM,
        priority=config.priority,
        workers=config.num_workers,
        gpus=config.gpus,
        preemptible=config.preemptible,
        max_retries=config.max_retries,
    )
