"""Random adapters, jobs, and a loop that runs them on the calling thread."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from terroir.inference.engine.decoding import VaeWorker
from terroir.inference.engine.loop import DrawingLoop
from terroir.inference.engine.messages import DrawingEvent, DrawJob, Drawn, JobEvent, PlanName, Raster, SpareTick
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.wearing.layers import adapt
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.composition import Composition


def random_adapter(model: Model, seed: int, *, rank: int = 3, strength: float = 0.08) -> Adapter:
    """Factors for attention, feed-forward, convolution and text encoder layers."""
    rng = np.random.default_rng(seed)
    modules = {}
    for layer, shape in model.key_table().items():
        if not any(part in layer for part in ("attn", "ff.net", "resnets.0.conv1", "proj_in")):
            continue
        down = rng.standard_normal((rank, *shape[1:]), dtype=np.float32) * strength
        up = rng.standard_normal((shape[0], rank, *(1 for _ in shape[2:])), dtype=np.float32) * strength
        modules[layer] = LoraModule(down, up, alpha=rank / 2)
    return Adapter(modules)


@dataclass(frozen=True)
class DressedJob(DrawJob):
    """A job that brings its adapters along; `Studio.submit` puts them before it."""

    adapters: Mapping[str, Adapter] = field(default_factory=dict)


def make_job(
    job_id: str, adapters: Mapping[str, tuple[Adapter, float, float]] | None = None, **fields: Any
) -> DressedJob:
    """A small job; `adapters` is digest → adapter, weight, text encoder weight."""
    worn = adapters or {}
    plain: dict[str, Any] = {
        "prompt": "a red cat", "negative_prompt": "", "width": 32, "height": 32, "steps": 3, "guidance_scale": 3.0,
        "sampler": "ddim", "seeds": (7,),
    }  # fmt: skip
    return DressedJob(
        id=job_id,
        composition=Composition.of((digest, weight, text) for digest, (_, weight, text) in worn.items()),
        adapters={digest: adapter for digest, (adapter, _, _) in worn.items()},
        **{**plain, **fields},
    )


@dataclass
class Studio:
    """A loop and what it emitted."""

    model: Model
    merged_budget_bytes: int = 1 << 28
    max_batch_rows: int = 32
    spare_tick_seconds: float = 0.05
    events: list[JobEvent] = field(default_factory=list)
    spare_ticks: list[SpareTick] = field(default_factory=list)
    plan: Literal["auto"] | PlanName = "auto"
    static_rows: int = 0
    clock: Callable[[], float] = time.monotonic
    stacks: Stacks = field(init=False)
    vae: VaeWorker = field(init=False)
    loop: DrawingLoop = field(init=False)

    def __post_init__(self) -> None:
        self.stacks = Stacks(
            adapt(self.model.layers()),
            budget_bytes=self.merged_budget_bytes,
            plan=self.plan,
            static_rows=self.static_rows,
        )
        self.vae = VaeWorker(
            self.model,
            self.events.append,
            lambda job, encoded: self.loop.encoded(job, encoded),
            preview=self.model.decode,
            used_bytes=lambda: self.stacks.used_bytes,
        )
        self.loop = DrawingLoop(
            self.model, self.stacks, self.vae, self.max_batch_rows, self._take, self.clock,
            spare_tick_seconds=self.spare_tick_seconds,
        )  # fmt: skip

    def _take(self, event: DrawingEvent) -> None:
        if isinstance(event, SpareTick):
            self.spare_ticks.append(event)
        else:
            self.events.append(event)

    def submit(self, job: DressedJob) -> None:
        """Put the job's adapters, then the job."""
        for digest, adapter in job.adapters.items():
            self.stacks.put(digest, self.stacks.prepare(adapter))
        self.loop.submit(job)

    def run(self, *jobs: DressedJob) -> None:
        """Submit and draw to the end."""
        for job in jobs:
            self.submit(job)
        self.work_off()

    def tick(self) -> None:
        """One tick, and what it left for the VAE, on this thread."""
        self.loop.tick()
        self.vae.work_off()

    def work_off(self) -> None:
        """Draw to the end."""
        self.vae.work_off()
        while self.loop.busy:
            self.tick()

    def pictures(self, job_id: str) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
        """Finished pictures `[height, width, 3]` in order."""
        return [pixels(e.raster) for e in self.events if isinstance(e, Drawn) and e.id == job_id]


def pixels(raster: Raster) -> np.ndarray[Any, np.dtype[np.int16]]:
    """`[height, width, 3]`, signed so that differences are right."""
    return np.frombuffer(raster.data, np.uint8).reshape(raster.height, raster.width, 3).astype(np.int16)


def weights_digest(model: Model) -> str:
    """Over every weight of denoiser and text encoder."""
    digest = hashlib.sha256()
    for module in (model.unet, *model.text_encoders.values()):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
