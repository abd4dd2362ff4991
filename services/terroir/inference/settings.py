"""What an operator may set for inference; read from TERROIR_INFERENCE_…."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from terroir.common.settings import ServiceSettings
from terroir.tiny import BASE_DIR, BASE_ID

_MIB: Final = 1024 * 1024


class InferenceSettings(ServiceSettings):
    """Settings of the inference service."""

    model_config = SettingsConfigDict(env_prefix="TERROIR_INFERENCE_")

    port: int = Field(default=7104, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    registry_target: str = Field(default="127.0.0.1:7103", description="Address of the registry, host:port.")
    base: str = Field(default=BASE_ID, description="Identifier of the base model in the registry.")
    base_model: str = Field(default=str(BASE_DIR), description="Base model: diffusers folder or hub name.")
    default_guidance_scale: float = Field(
        default=3.0, ge=1, le=30, description="Guidance scale of requests that name none; what suits the base."
    )
    threads: int = Field(default=2, ge=1, le=256, description="CPU threads of the engine.")
    engine_niceness: int = Field(
        default=5,
        ge=0,
        le=19,
        description="By how much the engine yields to other processes on its cores, first of all to the server, which "
        "answers with covers while the engine draws. 0: not at all.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where to compute; `auto` takes a GPU.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Precision of the denoiser; `auto` is float16 on a GPU, float32 on a CPU."
    )
    plan: Literal["auto", "copy", "slots", "concat"] = Field(
        default="auto", description="How a batch wears its adapters; `auto` chooses by batch and layer."
    )
    compiled: bool = Field(
        default=False, description="Compile the denoiser (torch.compile); the first pictures take minutes."
    )
    preview_decoder: Literal["projection", "vae"] = Field(
        default="projection", description="What makes previews: a linear projection of the latents, or the whole VAE."
    )
    max_pixels: int = Field(
        default=1024 * 1024, ge=64 * 64, le=4096 * 4096, description="Most pixels (width × height) of one picture."
    )
    max_active_requests: int = Field(default=8, ge=1, le=256, description="Requests that draw at once.")
    max_active_rows: int = Field(
        default=64, ge=1, le=4096, description="Rows that draw at once; what is beyond max_batch_rows takes turns."
    )
    max_queue_size: int = Field(default=64, ge=0, le=10_000, description="Requests that may wait; 0 refuses at once.")
    max_batch_rows: int = Field(
        default=32, ge=1, le=1024, description="Most rows of one denoiser call; a picture with guidance takes two."
    )
    spare_tick_seconds: float = Field(
        default=0.05,
        gt=0,
        le=10,
        description="Seconds that a denoiser call may take that is made only for pictures that nobody waits for; a "
        "request that arrives waits for its end.",
    )
    adapter_memory_bytes: int = Field(
        default=2048 * _MIB, ge=_MIB, description="Bytes of adapters kept in host memory."
    )
    adapter_device_bytes: int = Field(
        default=1024 * _MIB, ge=_MIB, description="Bytes of adapters kept in device memory, by what they take there."
    )
    adapter_disk_bytes: int = Field(
        default=10 * 1024 * _MIB, ge=_MIB, description="Bytes of adapter files kept below data_dir."
    )
    max_rank: int = Field(
        default=256, ge=1, le=4096, description="Largest rank of an adapter's layers; what exceeds it is refused."
    )
    warm_regions: list[str] = Field(
        default=[],
        description="Regions (`regions/{code}`) whose adapters are fetched at start, before requests say what is "
        "popular, as a JSON list.",
    )
    prefetched_regions: int = Field(
        default=16, ge=0, le=1000, description="Most popular regions whose adapters are kept fetched; 0 keeps none."
    )
    prefetch_interval_seconds: float = Field(
        default=60.0, gt=0, le=86_400, description="Seconds between two looks at what popular regions resolve to."
    )
    merged_memory_bytes: int = Field(
        default=512 * _MIB, ge=0, description="Bytes that merged weights may take; layers beyond it wear factors."
    )
    provenance_profile: Literal["private", "public"] = Field(
        default="private", description="What files say of how they were made, where a request does not choose."
    )
    safety_check: str = Field(
        default="terroir.inference.request.safety:WordList",
        description="Check of prompts and pictures, as package.module:Class; see terroir.inference.request.safety.",
    )
    blocked_words: list[str] = Field(default=[], description="Words that prompts may not contain, as a JSON list.")
    blocked_words_file: Path | None = Field(
        default=None, description="File with more such words, UTF-8, one a line; read at start."
    )
    trusted_keys: list[Path] = Field(
        default=[], description="PEM files of public keys whose signatures of adapters are trusted, as a JSON list."
    )
    signature_policy: Literal["off", "warn", "require"] = Field(
        default="off",
        description="What happens to adapters without a trusted signature: nothing, a warning in the log, a refusal.",
    )
    load_timeout_seconds: float = Field(
        default=120.0, gt=0, le=3600, description="Seconds that fetching one adapter may take."
    )
    cover_memory_bytes: int = Field(
        default=256 * _MIB, ge=8 * _MIB, description="Bytes of covers kept in memory, files and what names them."
    )
    cover_variants: int = Field(
        default=2, ge=1, le=16, description="Variants of each content, for preparations that name no number."
    )
    cover_sets_at_once: int = Field(
        default=4, ge=1, le=256, description="Sets of variants that are drawn at once, in rows that nobody else uses."
    )
    cover_fills_queued: int = Field(
        default=10_000,
        ge=0,
        le=1_000_000,
        description="Sets that callers missed and that may wait to be drawn; 0 draws only what is prepared.",
    )
    cover_judge_model: Path | None = Field(
        default=None,
        description="Folder of a transformers CLIP that chooses among candidates; unset: the embedded one for the "
        "embedded base, none for others.",
    )
