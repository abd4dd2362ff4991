"""`terroir demo` from outside: its seconds, the memory of all its processes, and the style figures that it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.bench import Bench
from benchmarks.memory import PeakMemory, ProcessTree
from benchmarks.rows import Row, Target
from terroir.demo.plan import SEEDS, STACK_WEIGHT, Column, Style, columns

CHECKOUT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = CHECKOUT / "examples" / "styles"
_BASE: Final = "base without adapter"
_SECONDS: Final = "the whole demo, set-up apart"
_MEMORY: Final = "peak memory of all its processes, summed PSS"
_SECONDS_TARGET: Final = Target(300, cores=2)
_MEMORY_TARGET: Final = Target(4)
_BELOW_ONE: Final = 0.999
"""The demo rounds to three digits."""


def rows(bench: Bench) -> Iterator[Row]:
    """Run the demo, or read one."""
    if bench.demo_out is not None:
        out, reason = bench.demo_out, "the style figures are those of a finished demo, which was not timed"
        yield bench.row(_SECONDS, "s", None, target=_SECONDS_TARGET, reason=reason)
        yield bench.row(_MEMORY, "GiB", None, target=_MEMORY_TARGET, reason=reason)
    else:
        out = bench.work / "demo"
        yield from _run(bench, out)
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    first, second = [Style.load(path.parent) for path in sorted(EXAMPLES.glob("*/style.yaml"))[:2]]
    yield from style_rows(bench, figures, (first, second))


def _run(bench: Bench, out: Path) -> Iterator[Row]:
    tree = ProcessTree()
    examples = _few_steps(bench.work / "examples") if bench.quick else EXAMPLES
    command = [sys.executable, "-m", "terroir.cli.main", "demo", "--out", str(out), "--examples", str(examples)]
    since = time.monotonic()
    with PeakMemory(tree) as memory:
        subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **tree.environment}, check=True)
    yield bench.row(_SECONDS, "s", time.monotonic() - since, target=_SECONDS_TARGET)
    bench.say(f"the peak was {memory.peak_after_seconds:.0f} s after the start, {memory.peak_processes} processes")
    yield bench.row(_MEMORY, "GiB", memory.peak_bytes / 2**30, target=_MEMORY_TARGET)


def _few_steps(folder: Path) -> Path:
    """The example styles, with hardly any training."""
    shutil.copytree(EXAMPLES, folder)
    for path in folder.glob("*/train.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        shortened = {**config, "max_train_steps": 4, "lr_warmup_steps": 0, "save_steps": 4}
        path.write_text(yaml.safe_dump(shortened), encoding="utf-8")
    return folder


def style_rows(bench: Bench, figures: Mapping[str, Any], styles: tuple[Style, Style]) -> Iterator[Row]:
    """Rows from a demo's figures.json; distances and agreements there are already divided by the base's."""
    found = {column["title"]: column for column in figures["columns"]}
    whole: dict[str, float] = {}
    plan = [column for column in columns(*styles) if column.weights]
    for column in sorted(plan, key=_half_last):
        measured = found[column.title]
        for adapter, weight in column.weights:
            distance = measured["distance"][adapter]
            if len(column.weights) > 1:
                target = Target(_BELOW_ONE)
            elif weight == 1.0:
                target, whole[adapter] = Target(0.6), distance
            else:
                target = Target(at_least=whole[adapter], at_most=1.0)
            name = f"distance to {adapter}'s pictures, {_worn(column)}, {len(SEEDS)} seeds"
            yield bench.row(name, "ours / base", distance, peer=1.0, peer_name=_BASE, target=target)
        yield bench.row(
            f"agreement with the prompt, {_worn(column)}", "ours / base", measured["agreement"], peer=1.0,
            peer_name=_BASE, target=Target(at_least=0.8),
        )  # fmt: skip


def _half_last(column: Column) -> tuple[int, float]:
    """Weight 1 before 0.5, whose bounds it gives; stacked columns at the end."""
    return len(column.weights), -column.weights[0][1]


def _worn(column: Column) -> str:
    if len(column.weights) > 1:
        return f"both at {STACK_WEIGHT}"
    adapter, weight = column.weights[0]
    return f"{adapter} at {weight:g}"
