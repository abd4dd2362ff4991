"""Seconds to compare two adapters of the size that people publish, on one core."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from benchmarks.bench import Bench
from benchmarks.rows import Row, Target
from benchmarks.timing import Pair, in_turns
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.compatibility import compare
from terroir.lora.formats import parse, to_kohya
from terroir.lora.key_table import KeyTable, key_table_of

_RANK = 16


def rows(bench: Bench) -> Iterator[Row]:
    """From two files in memory to the overlap; the peer forms the deltas and takes nothing but their cosine.

    In a process of its own that never had more than one core: numpy's threads would spin for each other on it.
    """
    core = min(os.sched_getaffinity(0))
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.compatibility.speed", "--count", str(bench.count(5, 1))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, check=True, stdout=subprocess.PIPE,
        text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    taken = Pair(**json.loads(ended.stdout.splitlines()[-1]))
    yield bench.row(
        f"compatibility of two rank-{_RANK} adapters of SD 1.5's 128 attention layers, from files, one core, p50",
        "s", taken.ours, peer=taken.peer, peer_name="numpy on the full deltas, cosine only", target=Target(2),
    )  # fmt: skip


def sd15_attention() -> KeyTable:
    """Attention projections of the SD 1.5 denoiser, from diffusers' own architecture; no weights are made."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    shapes = {
        name: tuple(weight.shape) for name, weight in unet.named_parameters() if ".attn1." in name or ".attn2." in name
    }
    return key_table_of(shapes, {})


def _file(table: KeyTable, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    modules = {
        layer: LoraModule(
            down=rng.standard_normal((_RANK, shape[1]), dtype=np.float32) / np.float32(np.sqrt(shape[1])),
            up=rng.standard_normal((shape[0], _RANK), dtype=np.float32) / np.float32(_RANK),
            alpha=float(_RANK),
        )
        for layer, shape in table.items()
    }
    return to_kohya(Adapter(modules), {}, "float16")


def _full_cosine(first: Adapter, second: Adapter) -> float:
    inner = one = other = 0.0
    for layer, module in first.modules.items():
        left, right = module.delta().ravel(), second.modules[layer].delta().ravel()
        inner, one, other = inner + float(left @ right), one + float(left @ left), other + float(right @ right)
    return inner / float((one * other) ** 0.5)


def main() -> None:
    """Measure in this process, for `rows`; prints both medians in seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5)
    count = parser.parse_args().count
    table = sd15_attention()
    files = [_file(table, seed) for seed in range(2)]
    adapters = [parse(data, table).adapter for data in files]
    taken = in_turns(
        count,
        lambda _: compare(*(parse(data, table).adapter for data in files)),
        lambda _: _full_cosine(*adapters),
    )
    print(json.dumps(asdict(taken)))


if __name__ == "__main__":
    main()
