"""What an operator may set for the training service; read from TERROIR_TRAINING_…."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from terroir.common.settings import ServiceSettings
from terroir.tiny import BASE_DIR, BASE_ID

Identifier: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class TeamQuota(BaseModel):
    """Limits and weight of one team."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: float | None = Field(default=None, ge=0, description="GPUs at once. Unset: no limit.")
    jobs: int | None = Field(default=None, ge=0, description="Running jobs at once. Unset: no limit.")
    weight: float = Field(default=1.0, gt=0, description="Its part when all want more than there is.")


class TrainingSettings(ServiceSettings):
    """Settings of the training service."""

    model_config = SettingsConfigDict(env_prefix="TERROIR_TRAINING_")

    port: int = Field(default=7102, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    drain_timeout_seconds: float = Field(
        default=3.0,
        ge=0,
        le=3600,
        description="Seconds that running calls may take to finish at shutdown; watches never do.",
    )
    dataset_target: str = Field(default="127.0.0.1:7101", description="host:port of the dataset service.")
    registry_target: str = Field(default="127.0.0.1:7103", description="host:port of the registry service.")
    base_sources: dict[str, Path] = Field(
        default={BASE_ID: BASE_DIR},
        description="Base models to train on: id → diffusers folder on the workers, as JSON.",
    )
    import_sources: dict[Identifier, str] = Field(
        default={},
        description="Places with pictures that styles may be registered from: id → `s3://bucket/prefix` (reached as "
        "the store is) or a folder of this machine, as JSON.",
    )
    judge_model: str = Field(
        default="",
        description="Folder on the workers with the CLIP that judges checkpoints, as transformers saves it. Empty: "
        "the embedded one, which judges runs on the embedded base alone.",
    )
    ray_dashboard_url: str = Field(
        default="",
        description="http://host:port of a Ray cluster's dashboard. Empty: a local Ray starts with the first job.",
    )
    ray_auth_token: SecretStr = Field(default=SecretStr(""), description="Token of that cluster, if it asks for one.")
    driver_python: str = Field(
        default="",
        description="Python that runs drivers on the cluster. Empty: this one on a local Ray, else `python`.",
    )
    local_ray_start_seconds: float = Field(
        default=120.0, gt=0, description="Seconds that a local Ray may take to start."
    )
    object_store_bytes: int = Field(
        default=80_000_000, ge=78_643_200, description="Shared memory of a local Ray; trainers pass only small results."
    )
    max_running_jobs: int = Field(
        default=max(1, os.cpu_count() or 1),
        ge=1,
        le=10_000,
        description="Jobs submitted to Ray at once; others wait queued.",
    )
    cpus_per_job: int = Field(default=1, ge=1, le=1024, description="Processor cores and torch threads of one trainer.")
    gpus_per_job: float = Field(
        default=0.0, ge=0, le=1, description="GPU share of one trainer; 0 trains on the processor."
    )
    max_retries: int = Field(
        default=20,
        ge=0,
        le=20,
        description="New attempts after lost ones that a job gets at most, whatever its key `max_retries` says.",
    )
    retry_backoff_seconds: float = Field(
        default=10.0, ge=0, le=3600, description="Pause after a job's first lost attempt; it doubles with each."
    )
    retry_backoff_limit_seconds: float = Field(
        default=600.0, ge=0, le=86_400, description="Longest pause after a lost attempt."
    )
    cluster_grows: bool = Field(
        default=True,
        description="Whether Ray adds nodes for what is asked of it. If not, the queue counts room node by node, and "
        "keeps or makes it for a job that does not fit.",
    )
    max_gpus: float | None = Field(
        default=None,
        gt=0,
        description="GPUs that all jobs together may hold. Unset: no bound, and what jobs ask for scales the cluster.",
    )
    team_quotas: dict[Identifier, TeamQuota] = Field(
        default={},
        description='What each team may hold at once, and its weight, as JSON: `{"tea": {"gpus": 16, "jobs": 40, '
        '"weight": 2}}`.',
    )
    default_quota: TeamQuota = Field(default=TeamQuota(), description="The same for every team that is not named.")
    team_members: dict[Identifier, tuple[str, ...]] = Field(
        default={},
        description="Who may submit for a team, as JSON: team → names of principals, `*` for any part. Teams that are "
        "not named are open to all.",
    )
    high_priority_members: tuple[str, ...] = Field(
        default=("*",),
        description="Who may submit jobs of priority `high`, as JSON: names of principals, `*` for any part.",
    )
    aging_seconds: float = Field(
        default=4 * 3600.0,
        gt=0,
        description="A waiting job competes with other teams as one class higher after each of these.",
    )
    reserve_after_seconds: float = Field(
        default=900.0,
        ge=0,
        description="A job that does not fit may be passed by smaller ones for so long; then room is kept for it.",
    )
    min_run_seconds: float = Field(
        default=300.0, ge=0, description="An attempt that is younger is not asked to make room for a more urgent job."
    )
    make_room_seconds: float = Field(
        default=600.0,
        gt=0,
        description="An attempt that was asked to make room has so long to save its checkpoint; then Ray ends it.",
    )
    usage_half_life_seconds: float = Field(
        default=24 * 3600.0,
        gt=0,
        description="Use of GPUs and cores of so long ago counts half in a team's fair share.",
    )
