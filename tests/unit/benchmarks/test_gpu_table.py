"""`make bench-gpu`'s own code, on tiny shapes and without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.bench import Bench
from benchmarks.gpu.base import build_small
from benchmarks.gpu.table import Scale, Table
from terroir.inference.engine.pipeline.model import Model
from tests.unit.benchmarks.bench_kit import MACHINE


@pytest.mark.slow
def test_its_rows_are_made_and_nothing_is_judged_on_tiny_shapes(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    bench = Bench("gpu", tmp_path, MACHINE, "a command", quick=True, say=lambda _line: None)
    base = build_small(tmp_path / "base")
    table = Table(bench, Model(str(base)), Scale.small())
    rows = [*table.throughput(base), *table.ticks(), *table.compiled()]
    assert all(row.ours is not None and row.ours >= 0 for row in rows)
    compiled = rows.pop()
    assert (compiled.figure, compiled.ours) == ("graphs compiled when all adapters changed", 0)
    assert all(row.met is None and row.reason for row in rows)
    assert [row.figure for row in rows if "concat" in row.figure]
    torch.compiler.reset()
