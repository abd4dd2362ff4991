"""What a tick costs on this device, measured before the first request; the same calls warm the device up."""

from __future__ import annotations

import time
from typing import Final

import torch

from terroir.inference.engine.messages import SAMPLERS, DrawJob, TickCost
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.composition import Composition

_ROWS: Final = (2, 8)
_BUDGET_SECONDS: Final = 3.0
_BARE: Final = Composition()


@torch.inference_mode()
def measure_ticks(model: Model, stacks: Stacks) -> tuple[TickCost, ...]:
    """Calls of the bare base at its native size; a larger one only if the smaller promises that it will be quick."""
    side = model.native_resolution
    costs: list[TickCost] = []
    stacks.join(_BARE)
    for rows in _ROWS:
        if costs and costs[-1].seconds * rows > _BUDGET_SECONDS:
            break
        for _ in range(2):
            began = time.monotonic()
            _call(model, stacks, rows, side)
            if time.monotonic() - began > _BUDGET_SECONDS:
                break
        costs.append(TickCost(side * side, rows, time.monotonic() - began))
    stacks.leave(_BARE)
    return tuple(costs)


def _call(model: Model, stacks: Stacks, rows: int, side: int) -> None:
    job = DrawJob(
        id="profile", prompt="", negative_prompt="", composition=_BARE, width=side, height=side, steps=1,
        guidance_scale=1.0, sampler=SAMPLERS[0], seeds=tuple(range(rows)),
    )  # fmt: skip
    scheduler = model.sampler(job.sampler, job.steps)
    begun = model.start(scheduler, job, [torch.Generator("cpu").manual_seed(seed) for seed in job.seeds], None)
    conditioning = model.condition("", "", count=rows // 2, width=side, height=side, wearing=())
    timesteps = begun.timesteps[:1].to(torch.float32).expand(rows)
    with stacks.worn([(_BARE, rows)]):
        model.predict(begun.latents, timesteps, conditioning)
    if model.device == "cuda":
        torch.cuda.synchronize()
