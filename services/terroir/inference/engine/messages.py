"""What passes between the gRPC process and the engine: plain values that pickle, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition

SAMPLERS: Final = ("ddim", "euler", "euler-a", "dpmpp-2m")


@dataclass(frozen=True)
class EngineConfig:
    """What the engine's process needs to start."""

    base_model: str
    """diffusers folder or hub name."""
    threads: int
    """CPU threads of the device's operations."""
    merged_budget_bytes: int
    """Bytes of merged weights kept for compositions that nobody draws with now."""
    max_batch_rows: int
    """Most rows of one denoiser call; a picture with guidance takes two."""


@dataclass(frozen=True)
class DrawJob:
    """One request: all its seeds are drawn as one batch."""

    id: str
    prompt: str
    negative_prompt: str
    composition: Composition
    adapters: Mapping[str, Adapter]
    """By digest, all that the composition names."""
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str
    seeds: tuple[int, ...]
    preview_interval_steps: int = 0
    deadline: float | None = None
    """Reading of the machine's monotonic clock, in seconds."""


@dataclass(frozen=True)
class Cancel:
    """Stop a job at its next step; unknown and finished ones are ignored."""

    id: str


@dataclass(frozen=True)
class Stop:
    """End the process."""


Command = DrawJob | Cancel | Stop


@dataclass(frozen=True)
class EngineInfo:
    """First message of an engine that has loaded its model."""

    pid: int
    device: str
    base_digest: str
    key_table: Mapping[str, tuple[int, ...]]
    """`<component>.<module path>` → weight shape of every layer that an adapter may change."""
    native_resolution: int
    """Pixels."""


@dataclass(frozen=True)
class LoadFailed:
    """The model can't be loaded; the process ends."""

    message: str


@dataclass(frozen=True)
class Stepped:
    """A denoising step of a job is done; `seconds` is the wall time of its denoiser call."""

    id: str
    step: int
    seconds: float


@dataclass(frozen=True)
class Raster:
    """An RGB picture, 8 bits a channel, rows from the top."""

    width: int
    height: int
    data: bytes


@dataclass(frozen=True)
class Previewed:
    """What a picture looks like after `step` steps."""

    id: str
    index: int
    step: int
    raster: Raster


@dataclass(frozen=True)
class Drawn:
    """A finished picture."""

    id: str
    index: int
    raster: Raster


@dataclass(frozen=True)
class Finished:
    """All pictures of a job were sent."""

    id: str
    compute_seconds: float
    """From the job's first turn on the device to its last picture, other jobs' turns between included."""
    warnings: tuple[str, ...]
    merged_bytes: int
    """Bytes of merged weights in the engine now."""


@dataclass(frozen=True)
class Failed:
    """A job ended without all its pictures; code and reason are those of `terroir.common.errors`."""

    id: str
    code: str
    reason: str
    message: str


JobEvent = Stepped | Previewed | Drawn | Finished | Failed
EngineEvent = EngineInfo | LoadFailed | JobEvent
