"""Our training engine beside a loop with both encoders in every step, on the tiny base and in SD 1.5's shape."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.bench import Bench
from benchmarks.gpu import training as on_gpu
from benchmarks.gpu.base import QUARTER, SD15, build_sd15
from benchmarks.rows import Row
from benchmarks.training import checkpoint_cost, judged, memory_rows, speed
from benchmarks.training.memory_rows import Trained
from benchmarks.training.one_side import pictures_of
from benchmarks.training.sides import Place
from benchmarks.training.speed import Comparison
from terroir.tiny import BASE_DIR
from terroir.training.config import TrainConfig

_STYLES: Final = Path(__file__).resolve().parents[2] / "examples" / "styles"
# The peer's script drops no captions.
_SAME: Final = {"lora_rank": 8, "lora_alpha": 8, "learning_rate": 1e-3, "caption_dropout": 0}
_TINY: Final = _SAME | {"batch_size": 8, "resolution": 64}
_QUARTER: Final = _SAME | {"batch_size": 4, "resolution": 128}
_WHOLE: Final = _SAME | {"batch_size": 1, "resolution": 128}
_QUARTER_NAME, _WHOLE_NAME = "SD 1.5's blocks at a quarter of their width", "SD 1.5's shape"


def rows(bench: Bench) -> Iterator[Row]:
    """Speed and memory on three bases, then what a checkpoint costs; a GPU has a command of its own."""
    threads = len(os.sched_getaffinity(0))
    folder = sorted(path.parent for path in _STYLES.glob("*/style.yaml"))[0]
    quarter = build_sd15(bench.work / "quarter", QUARTER, torch.float32)
    yield from _both(bench, "tiny base", BASE_DIR, folder, _TINY, threads, steps=(18, 6), rounds=(4, 2))
    yield from _both(bench, _QUARTER_NAME, quarter, folder, _QUARTER, threads, steps=(9, 5), rounds=(3, 1))
    if not bench.quick:
        whole = build_sd15(bench.work / "whole", SD15, torch.float32)
        yield from _both(bench, _WHOLE_NAME, whole, folder, _WHOLE, threads, steps=(7, 5), rounds=(2, 1))
    data = pictures_of(folder)
    yield from checkpoint_cost.rows(bench, Place(BASE_DIR, threads), "tiny base", data)
    yield from judged.rows(bench, data, threads)
    yield from on_gpu.unmeasured(bench)


def _both(
    bench: Bench,
    name: str,
    base: Path,
    folder: Path,
    keys: dict[str, Any],
    threads: int,
    *,
    steps: tuple[int, int],
    rounds: tuple[int, int],
) -> Iterator[Row]:
    """`steps` and `rounds` in full and quick."""
    count = bench.count(*steps)
    config = keys | {"max_train_steps": count, "save_steps": count}
    compared = Comparison(
        name, Place(base, threads), TrainConfig.model_validate(config), pictures_of(folder), bench.count(*rounds)
    )
    yield from speed.rows(bench, compared)
    few = config | {"max_train_steps": 3, "save_steps": 3}
    yield from memory_rows.rows(bench, Trained(str(compared), base, folder, few, threads))
