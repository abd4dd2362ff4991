"""Keys of where and when a job runs on Ray; a run without a server takes no notice of them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from terroir.training.config.limits import Identifier, Section


class Priority(StrEnum):
    """Classes of urgency; a higher one may pre-empt a lower one."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class SchedulingKeys(Section):
    """Place in the queue and resources."""

    priority: Priority = Field(
        Priority.NORMAL,
        description="`low`, `normal` or `high`; a job that waits may pre-empt a running one of a lower class.",
    )
    team: Identifier = Field("", description="Whose quota and fair share the job counts against. Empty: `default`.")
    gpus: float | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs of each worker; below 1 a share of one and of its memory. Unset: the operator's default.",
    )
    num_workers: int = Field(
        1, ge=1, le=64, description="Workers that train one job by data parallelism; batch_size is that of each."
    )
    preemptible: bool = Field(
        True,
        description="Whether a more urgent job may take its place; it goes on later from a checkpoint of that moment.",
    )
    max_retries: int = Field(
        3,
        ge=0,
        le=20,
        description="New attempts after faults of the infrastructure; errors of the run itself are final.",
    )
