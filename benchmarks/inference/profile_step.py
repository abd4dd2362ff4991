"""Where a tick's time goes, mixed stacks beside none and diffusers: `python -m benchmarks.inference.profile_step`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.inference.engine_rig import EngineRig, job, stack_of_three
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.composition import Composition
from terroir.tiny import BASE_DIR, NATIVE_SIDE

_REQUESTS = 8
_TICKS = 4


def main() -> None:
    """Print the operations that take longest, by self time."""
    torch.set_num_threads(2)
    rig = EngineRig(Model(str(BASE_DIR)))
    for name, worn in (
        ("eight different 3-adapter stacks", [stack_of_three(index) for index in range(_REQUESTS)]),
        ("no adapters", [Composition()] * _REQUESTS),
    ):
        for index, composition in enumerate(worn):
            rig.loop.submit(job(index, composition, steps=_TICKS + 2))
        rig.loop.tick()
        _print(f"ours, {name}", lambda: [rig.loop.tick() for _ in range(_TICKS)])
        rig.draw(())
        rig.forget()
    unet: Any = rig.model.unet
    side = NATIVE_SIDE // 4
    latents, timesteps = torch.randn(2 * _REQUESTS, unet.config.in_channels, side, side), torch.full((16,), 500.0)
    texts = torch.randn(2 * _REQUESTS, 32, unet.config.cross_attention_dim)
    with torch.inference_mode():
        _print("diffusers, the same call alone", lambda: [unet(latents, timesteps, texts) for _ in range(_TICKS)])


def _print(name: str, call: Callable[[], object]) -> None:
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        call()
    table = taken.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40)
    print(f"\n{name}, {_TICKS} ticks\n{table}")


if __name__ == "__main__":
    main()
