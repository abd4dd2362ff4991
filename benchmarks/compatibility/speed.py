"""Seconds to compare two adapters of the size that people publish, on one core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from benchmarks.bench import Bench
from benchmarks.rows import Row, Target
from benchmarks.timing import in_turns
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.compatibility import compare
from terroir.lora.formats import parse, to_kohya
from terroir.lora.key_table import KeyTable, key_table_of

_RANK = 16


def rows(bench: Bench) -> Iterator[Row]:
    """From two files in memory to the overlap; the peer forms the deltas and takes nothing but their cosine."""
    table = sd15_attention()
    files = [_file(table, seed) for seed in range(2)]
    adapters = [parse(data, table).adapter for data in files]
    with _one_core():
        taken = in_turns(
            bench.count(5, 1),
            lambda _: compare(*(parse(data, table).adapter for data in files)),
            lambda _: _full_cosine(*adapters),
        )
    yield bench.row(
        f"compatibility of two rank-{_RANK} adapters of SD 1.5's {len(table)} attention layers, from files, one core, "
        "p50",
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


@contextmanager
def _one_core() -> Iterator[None]:
    """Pin every thread that is there: the library's own were made before, with all cores."""
    before = os.sched_getaffinity(0)
    threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    _pin(threads, {min(before)})
    try:
        yield
    finally:
        _pin(threads, before)


def _pin(threads: list[int], cores: set[int]) -> None:
    for thread in threads:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)
