"""`make bench-gpu`: the engines on SD 1.5-shaped weights at 512 × 512, of inference or with AREA=training of training.

Each row is printed and saved as it comes, into benchmarks/results/gpu-<machine>.json or gpu-training-<machine>.json.
With --small the same code runs on tiny shapes, on whatever machine: that proves the code, and its figures are not
judged.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import torch

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.gpu import training
from benchmarks.gpu.base import build_sd15, build_small
from benchmarks.gpu.table import Scale, rows
from benchmarks.rows import AreaResult, Row

CHECKOUT: Final = Path(__file__).resolve().parents[2]


def main() -> int:
    """Exit status 1 without a GPU, unless --small."""
    options = _options()
    if not (options.small or torch.cuda.is_available()):
        print("no GPU: run this on a machine with one, or try the code with --small", file=sys.stderr)
        return 1
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    here, began = machine.describe(CHECKOUT), time.monotonic()
    folder = options.out or CHECKOUT / ("build/benchmarks" if options.small else "benchmarks/results")
    trains = options.area == "training"
    area = f"gpu-{'training-' if trains else ''}{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"
    print(f"{area}: {name}, torch {torch.__version__}", flush=True)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="terroir-gpu-") as work:
        command = f"python -m benchmarks.gpu{' --area training' if trains else ''}{' --small' if options.small else ''}"
        bench = Bench(area, Path(work), here, command, quick=options.small)
        base = (build_small if options.small else build_sd15)(Path(work) / "base")
        if trains:
            found_rows = training.rows(bench, base, training.Scale.small() if options.small else training.Scale.sd15())
        else:
            found_rows = rows(bench, base, Scale.small() if options.small else Scale.sd15())
        for row in found_rows:
            found.append(row)
            print(f"  {row.figure}: {row.ours} {row.unit}, {row.peer_name}: {row.peer}, ratio {row.ratio}", flush=True)
            AreaResult(area, here, round(time.monotonic() - began, 1), tuple(found)).save(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--area", choices=("inference", "training"), default="inference", help="which engine")
    parser.add_argument("--small", action="store_true", help="tiny shapes, on a CPU too; proves the code alone")
    parser.add_argument("--out", type=Path, help="folder for the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
