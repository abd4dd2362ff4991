"""What an operator may set for the registry; read from TERROIR_REGISTRY_…."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from terroir.common.settings import ServiceSettings
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
    max_parallel_publishes: int = Field(
        default=2, ge=1, le=64, description="Files parsed at once; each takes about four times its size in memory."
    )
    max_parallel_comparisons: int = Field(
        default=2, ge=1, le=64, description="Compatibility checks computed at once; each takes one core for seconds."
    )
