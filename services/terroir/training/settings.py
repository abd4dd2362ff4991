"""What an operator may set for the training service; read from TERROIR_TRAINING_…."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from terroir.common.settings import ServiceSettings
from terroir.tiny import BASE_DIR, BASE_ID


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
    import_sources: dict[str, str] = Field(
        default={},
        description="Places with pictures that styles may be registered from: id → `s3://bucket/prefix` (reached as "
        "the store is) or a folder of this machine, as JSON.",
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
    max_lost_attempts: int = Field(
        default=3, ge=1, le=100, description="Attempts that may be lost with their worker before the job fails."
    )
