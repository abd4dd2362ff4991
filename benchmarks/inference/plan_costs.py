"""The cost table of plans on this machine: `python -m benchmarks.inference.plan_costs`.

For layers of the tiny base and of SD 1.5, eight requests of two rows in eight stacks: time by plan against no adapters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Final

import torch
from torch import Tensor, nn

from terroir.inference.engine.wearing.layers import AdaptedLinear, MergedSlots, RankConcatenated, Worn, adapt

_REQUESTS, _ROWS = 8, 2
_SHAPES: Final = (
    ("tiny base, 16×16", 256, 64, 64),
    ("tiny base, 16×16, feed-forward", 256, 64, 512),
    ("tiny base, 8×8", 64, 96, 96),
    ("tiny base, 4×4", 16, 160, 160),
    ("SD 1.5, 64×64", 4096, 320, 320),
    ("SD 1.5, 32×32", 1024, 640, 640),
    ("SD 1.5, 16×16", 256, 1280, 1280),
    ("SD 1.5, 8×8", 64, 1280, 1280),
    ("SD 1.5, keys of 77 text tokens", 77, 768, 1280),
)
"""Name, tokens a row, inputs, outputs."""


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 48], help="sum of a stack's ranks")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each figure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    heads = [f"concat, rank {rank}" for rank in options.ranks]
    print(
        f"| layer ({device}) | without, ms | slots | {' | '.join(heads)} |\n"
        f"| --- | ---: |{' ---: |' * (1 + len(heads))}"
    )
    for name, tokens, inputs, outputs in _SHAPES:
        taken = measure(tokens, inputs, outputs, options.ranks, options.seconds, device)
        ratios = " | ".join(f"{seconds / taken[0]:.2f} ×" for seconds in taken[1:])
        print(f"| {name}, {inputs} → {outputs} | {1e3 * taken[0]:.3f} | {ratios} |", flush=True)


@torch.inference_mode()
def measure(tokens: int, inputs: int, outputs: int, ranks: list[int], seconds: float, device: str) -> list[float]:
    """Median seconds of one call: bare, slots, then concat for each rank; taken in turns."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    layer = adapt({"unet.layer": nn.Linear(inputs, outputs).to(device, dtype)})["unet.layer"]
    assert isinstance(layer, AdaptedLinear)
    x = torch.randn(_REQUESTS * _ROWS, tokens, inputs, device=device, dtype=dtype)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype) / shape[-1]

    ways: list[Worn | None] = [None, MergedSlots(random(_REQUESTS, outputs, inputs))]
    ways += [
        RankConcatenated(random(_REQUESTS, rank, inputs), random(_REQUESTS, outputs, rank), random(_REQUESTS, 1, rank))
        for rank in ranks
    ]
    taken: list[list[float]] = [[] for _ in ways]
    until = time.perf_counter() + seconds * len(ways)
    while time.perf_counter() < until or len(taken[0]) < 5:
        for number, way in enumerate(ways):
            layer.hanger.worn = way
            began = time.perf_counter()
            layer(x)
            if device == "cuda":
                torch.cuda.synchronize()
            taken[number].append(time.perf_counter() - began)
    return [statistics.median(each) for each in taken]


if __name__ == "__main__":
    main()
