"""What the judging tests share: adapters of many kinds, and the inference engine run to its end on this thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from terroir.inference.engine.engine import Engine
from terroir.inference.engine.messages import (
    DrawingEvent,
    DrawJob,
    Drawn,
    EngineConfig,
    Failed,
    Finished,
    PutAdapter,
    Stop,
)
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.base_folder import read_layers
from terroir.lora.composition import Composition
from terroir.training.judging.drawing import GUIDANCE_SCALE, SAMPLER, STEPS, Sketch

_PARTS = ("attn", "ff.net", "resnets.0.conv1", "proj_in", "q_proj")


def random_adapter(base_dir: Path, seed: int, *, dora: bool = False, strength: float = 0.08) -> Adapter:
    """Attention, feed-forward, convolutions and the text encoder; strong enough to change every picture."""
    rng = np.random.default_rng(seed)
    modules = {}
    for layer, shape in read_layers(base_dir).items():
        if any(part in layer for part in _PARTS):
            down = rng.standard_normal((3, *shape[1:]), dtype=np.float32) * strength
            up = rng.standard_normal((shape[0], 3, *(1 for _ in shape[2:])), dtype=np.float32) * strength
            magnitude = rng.uniform(0.5, 1.5, shape[0]).astype(np.float32) if dora else None
            modules[layer] = LoraModule(down, up, alpha=2.0, magnitude=magnitude)
    return Adapter(modules)


def drawn_by_inference(base_dir: Path, adapter: Adapter | None, sketches: Sequence[Sketch]) -> list[Image.Image]:
    """Each sketch as a request of its own with the service's defaults, the adapter at weight 1."""
    events: list[DrawingEvent] = []

    def emit(event: DrawingEvent) -> None:
        events.append(event)
        if sum(isinstance(one, Finished | Failed) for one in events) == len(sketches):
            engine.take(Stop())

    engine = Engine(
        EngineConfig(
            base_model=str(base_dir), threads=1, device="cpu", dtype="auto", plan="auto", compiled=False,
            preview_decoder="vae", merged_budget_bytes=1 << 28, max_batch_rows=32, spare_tick_seconds=0.05,
        ),
        emit,
    )  # fmt: skip
    side = engine.info().native_resolution
    if adapter is not None:
        engine.take(PutAdapter("worn", adapter))
    composition = Composition.of([("worn", 1.0, 1.0)] if adapter else [])
    for number, sketch in enumerate(sketches):
        engine.take(
            DrawJob(
                id=str(number), prompt=sketch.prompt, negative_prompt="", composition=composition, width=side,
                height=side, steps=STEPS, guidance_scale=GUIDANCE_SCALE, sampler=SAMPLER, seeds=(sketch.seed,),
            )
        )  # fmt: skip
    engine.run()
    by_job = {event.id: event.raster for event in events if isinstance(event, Drawn)}
    rasters = [by_job[str(number)] for number in range(len(sketches))]
    return [Image.frombytes("RGB", (raster.width, raster.height), raster.data) for raster in rasters]
