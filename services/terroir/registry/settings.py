"""What an operator may set for the registry; read from TERROIR_REGISTRY_…."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from terroir.common.settings import ServiceSettings
from terroir.lora.formats import MAX_RANK
from terroir.tiny import BASE_DIR, BASE_ID

MAX_UPLOAD_BYTES: Final = 1024**3


class RegistrySettings(ServiceSettings):
    """Settings of the registry service."""

    model_config = SettingsConfigDict(env_prefix="TERROIR_REGISTRY_")

    port: int = Field(default=7103, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    base_sources: dict[str, Path] = Field(
        default={BASE_ID: BASE_DIR},
        description="Base models to register at start: id → diffusers folder, as JSON.",
    )
    max_upload_bytes: int = Field(
        default=MAX_UPLOAD_BYTES, ge=1, le=MAX_UPLOAD_BYTES, description="Largest adapter file accepted, in bytes."
    )
    max_rank: int = Field(
        default=512,
        ge=1,
        le=MAX_RANK,
        description="Largest rank of an adapter: published ones stay below 256, and serving costs grow with it.",
    )
    max_parallel_publishes: int = Field(
        default=2, ge=1, le=64, description="Files parsed at once; each takes about six times its size in memory."
    )
    max_parallel_comparisons: int = Field(
        default=2, ge=1, le=64, description="Compatibility checks computed at once; each takes one core for seconds."
    )
    signing_key: Path | None = Field(
        default=None,
        description="PEM file of the private key (elliptic curve) that signs published versions; empty: no signing.",
    )
    protected_aliases: frozenset[str] = Field(
        default=frozenset({"production"}),
        description="Aliases whose changes need the role publisher and a reason, as a JSON list.",
    )
    index_poll_seconds: float = Field(
        default=0.2, ge=0.01, le=60, description="Time between two looks for other replicas' changes, in seconds."
    )
    index_snapshot_changes: int = Field(
        default=10_000, ge=1, le=10_000_000, description="Changes after which a snapshot of the index is written."
    )
    index_snapshot_minutes: float = Field(
        default=30, gt=0, le=10_080, description="Minutes after which a snapshot is written if anything changed."
    )
    index_rebuild_parallel_reads: int = Field(
        default=16, ge=1, le=256, description="Documents read at once where there is no snapshot to start from."
    )
