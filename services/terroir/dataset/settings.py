"""Settings of the dataset service, read from TERROIR_DATASET_… variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from terroir.common.settings import ServiceSettings
from terroir.dataset.thresholds import Thresholds
from terroir.dataset.vocabulary import DRAWN_WORLD
from terroir.tiny import CLIP_DIR

_MIB = 1024 * 1024


class DatasetSettings(ServiceSettings):
    """Every setting has its unit in its name and its default here."""

    model_config = SettingsConfigDict(env_prefix="TERROIR_DATASET_", env_nested_delimiter="__", extra="forbid")

    port: int = Field(7101, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    gates: Thresholds = Field(Thresholds(), description="Thresholds of the quality gates, one variable each.")
    pixel_limit: int = Field(50_000_000, ge=4096, le=80_000_000, description="Most pixels of one picture.")
    max_pictures: int = Field(
        5000, ge=1, le=20_000, description="Most pictures of one dataset, rejected ones included."
    )
    max_import_streams: int = Field(8, ge=1, description="Most imports at once.")
    import_window_bytes: int = Field(
        64 * _MIB,
        ge=_MIB,
        description="Bytes that one import may have on the way or waiting; at least one picture goes.",
    )
    max_decoding: int = Field(2, ge=1, description="Most pictures decoded at once.")
    tagger_dir: Path = Field(CLIP_DIR, description="transformers CLIP folder of the zero-shot tagger.")
    tagger_vocabulary: Path = Field(DRAWN_WORLD, description="YAML file of what the tagger may say.")
    tagger_threads: int = Field(1, ge=1, description="CPU threads of the tagger's process.")
    tagger_idle_seconds: float = Field(60.0, gt=0, description="The tagger's process ends after this long without use.")
