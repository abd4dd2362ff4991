"""What passes between the gRPC process and the engine: plain values that pickle, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition

SAMPLERS: Final = ("ddim", "euler", "euler-a", "dpmpp-2m", "dpmpp-2m-karras", "unipc")
PlanName = Literal["copy", "slots", "concat"]
"""How a batch wears its adapters: see `engine.wearing.plans`."""


@dataclass(frozen=True)
class Raster:
    """An RGB picture, 8 bits a channel, rows from the top."""

    width: int
    height: int
    data: bytes


@dataclass(frozen=True)
class EngineConfig:
    """What the engine's process needs to start."""

    base_model: str
    """diffusers folder or hub name."""
    threads: int
    """CPU threads of the device's operations."""
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto", "float32", "float16", "bfloat16"]
    """Precision of denoiser and text encoders; `auto` is float16 on a GPU, float32 on a CPU."""
    plan: Literal["auto"] | PlanName
    """`auto` chooses by batch and layer; a name forces that plan wherever it is possible."""
    compiled: bool
    """torch.compile with static slots, so that adapters may change without recompiling."""
    preview_decoder: Literal["projection", "vae"]
    merged_budget_bytes: int
    """Bytes that merged weights may take; beyond it, layers that can take another plan."""
    max_batch_rows: int
    """Most rows of one denoiser call; a picture with guidance takes two."""
    spare_tick_seconds: float
    """How long a call may take that is made only for jobs that nobody waits for."""
    niceness: int = 0
    """By how much the process yields to others on its cores."""


@dataclass(frozen=True)
class PutAdapter:
    """Keep an adapter in device memory until `DropAdapter`; sent before the first job that names it."""

    digest: str
    adapter: Adapter


@dataclass(frozen=True)
class DropAdapter:
    """Forget an adapter that no unfinished job names."""

    digest: str


@dataclass(frozen=True)
class Start:
    """Where the first latents come from, if not from each seed's noise alone."""

    picture: Raster | None = None
    """img2img: noise is added to this picture, which has the job's size already."""
    strength: float = 1.0
    """Share of the steps that are done on it, above 0 and at most 1."""
    variation_of: int | None = None
    """Seed whose noise is bent (slerp) towards each seed's."""
    variation_strength: float = 0.0
    """0 is the noise of `variation_of`, 1 that of the seed."""


@dataclass(frozen=True)
class DrawJob:
    """One request: all its seeds are drawn as one batch. Its adapters were put before."""

    id: str
    prompt: str
    negative_prompt: str
    composition: Composition
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str
    seeds: tuple[int, ...]
    start: Start = Start()
    preview_interval_steps: int = 0
    deadline: float | None = None
    """Reading of the machine's monotonic clock, in seconds."""
    spare: bool = False
    """Nobody waits for it: it is drawn in rows that others leave, and pauses where they leave none."""


@dataclass(frozen=True)
class Cancel:
    """Stop a job at its next step; unknown and finished ones are ignored."""

    id: str


@dataclass(frozen=True)
class Stop:
    """End the process."""


Command = PutAdapter | DropAdapter | DrawJob | Cancel | Stop


@dataclass(frozen=True)
class TickCost:
    """Wall time of one tick."""

    pixels: int
    """Width × height of each picture of the batch."""
    rows: int
    """Rows of the denoiser call; a picture with guidance takes two."""
    seconds: float


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
    family: str
    """`sd15` or `sdxl`."""
    dtype: str
    """Precision of the denoiser, as torch names it."""
    profile: tuple[TickCost, ...]
    """Measured at start, for the first predictions."""


@dataclass(frozen=True)
class LoadFailed:
    """The model can't be loaded; the process ends."""

    message: str


@dataclass(frozen=True)
class Stepped:
    """A denoising step of a job is done."""

    id: str
    step: int
    total: int
    """Steps that this job makes; fewer than asked for where it starts from a picture."""
    tick: TickCost
    """Of the whole batch."""
    plan: str
    """What the batch wore, for metrics: `base`, `copy`, `slots`, `concat` or `mixed`."""


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


@dataclass(frozen=True)
class SpareTick:
    """Of one tick, what became of rows that those who wait left free.

    Only ticks tell that offered some: while no spare job is at hand, free rows are nobody's loss.
    """

    offered: int
    """Rows of spare jobs of the tick's shape, whether they had joined or not, that would have been in it had all of
    them joined: as many as `max_batch_rows` allows, and beside somebody who waits as many as make the tick hardly
    longer by all that is known (`SpareRoom`), else as many as keep it within `spare_tick_seconds`, but one drawing."""
    filled: int
    """Rows of spare jobs that made a step; fewer where one had to join first, and where memory did not suffice."""


JobEvent = Stepped | Previewed | Drawn | Finished | Failed
DrawingEvent = JobEvent | SpareTick
EngineEvent = EngineInfo | LoadFailed | DrawingEvent
