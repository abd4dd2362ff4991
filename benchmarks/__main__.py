"""Run benchmarks: `python -m benchmarks [--area AREA] [--list] [--docs]`.

Each area writes `<area>.json` into the results folder; runs that measure in full also renew docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import machine, page
from benchmarks.bench import Bench
from benchmarks.parts import PartsFailed
from benchmarks.rows import AreaResult, Row, load_all

CHECKOUT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = CHECKOUT / "benchmarks" / "results"
PAGE: Final = CHECKOUT / "docs" / "benchmarks.md"
AREAS: Final = {
    "store": "documents and blobs against the library beneath, seconds",
    "registry": "start-up of all services, adapter files over gRPC, under a minute",
    "access": "what authentication, encryption, metrics and traces cost a metadata call, under a minute",
    "inference": "pictures and mixed batches against diffusers and PEFT, hot loading, churn, ten minutes",
    "katz": "7,000 adapters with a long tail for ten minutes, and how replicas share them, fifteen minutes",
    "covers": "GetCovers warm and cold, preparations beside pictures, a feed for ten minutes, a quarter of an hour",
    "training": "our engine against other trainers on three bases, memory, checkpoints, CreateJob to the first step, "
    "twenty minutes",
    "scheduling": "a simulated week of the training queue beside first come, first served; its ticks, two minutes",
    "base": "the tiny base model's pictures and reconstructions, minutes",
    "images": "sizes of the container images, and cold starts of their containers, five minutes (needs `make images`)",
    "demo": "the whole demo: seconds, memory, style figures, minutes",
}
"""What each area measures, in the order in which they run."""


def main() -> int:
    """Command line; exit status 1 if an area could not be measured. A missed target is a result, not a failure."""
    options = _options()
    if options.list:
        for area, about in AREAS.items():
            print(f"{area:10} {about}")
        return 0
    if options.docs:
        _write_page()
        return 0
    if options.area:
        return _measure(options)
    return _each_in_its_own_process(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Terroir against named peers.")
    parser.add_argument("--area", choices=AREAS, help="one area instead of all")
    parser.add_argument("--list", action="store_true", help="list the areas and what they measure")
    parser.add_argument("--docs", action="store_true", help="only write docs/benchmarks.md from the results at hand")
    parser.add_argument("--demo-out", type=Path, help="read the style figures of this finished demo; run none")
    parser.add_argument("--quick", action="store_true", help="smallest counts, into build/benchmarks, page untouched")
    return parser.parse_args()


def _each_in_its_own_process(options: argparse.Namespace) -> int:
    # Libraries and threads of one area would weigh on the memory and time of the next.
    passed = [*(["--quick"] if options.quick else [])]
    if options.demo_out:
        passed += ["--demo-out", str(options.demo_out)]
    failed = []
    for number, area in enumerate(AREAS, start=1):
        print(f"[{number} of {len(AREAS)}]", end=" ", flush=True)
        if subprocess.run([sys.executable, "-m", "benchmarks", "--area", area, *passed], check=False).returncode:
            failed.append(area)
    if failed:
        print(f"could not be measured: {', '.join(failed)}; their errors stand above", file=sys.stderr)
    return 1 if failed else 0


def _measure(options: argparse.Namespace) -> int:
    area: str = options.area
    print(f"{area}: {AREAS[area]}", flush=True)
    command = f"python -m benchmarks --area {area}{' --quick' if options.quick else ''}"
    if area == "demo" and options.demo_out:
        command += " --demo-out DIR"
    # The engine waits so too: one policy for both sides, and spinning threads collapse where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of torchvision, which nothing here needs
    measure = importlib.import_module(f"benchmarks.areas.{area}").rows
    here, since = machine.describe(CHECKOUT), time.monotonic()
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="terroir-bench-") as work:
        bench = Bench(area, Path(work), here, command, options.quick, options.demo_out, _say)
        failed = _collect(measure(bench), found)
    result = AreaResult(area, here, round(time.monotonic() - since, 1), tuple(found))
    path = result.save(CHECKOUT / "build" / "benchmarks" if options.quick else RESULTS)
    _say(f"{result.seconds:.0f} s, written to {path.relative_to(CHECKOUT)}")
    if not options.quick:
        _write_page()
    if failed:
        print(f"parts of {area} failed: {failed}; their errors stand above", file=sys.stderr)
    return 1 if failed else 0


def _collect(rows: Iterator[Row], found: list[Row]) -> str:
    """Say and keep each row as it comes; returns which parts could not be measured, if any."""
    try:
        for row in rows:
            found.append(row)
            _say(_told(row))
    except PartsFailed as failed:
        return str(failed)
    return ""


def _write_page() -> None:
    PAGE.write_text(page.render(load_all(RESULTS, AREAS)), encoding="utf-8")


def _told(row: Row) -> str:
    ours = "not measured" if row.ours is None else f"{row.ours:g} {row.unit}"
    ratio = "" if row.ratio is None else f" (ratio {row.ratio:g})"
    peer = "" if row.peer is None else f", {row.peer_name}: {row.peer:g}{ratio}"
    verdict = {True: f", reaches {row.target}", False: f", MISSES {row.target}", None: ""}[row.met]
    return f"{row.figure}: {ours}{peer}{verdict}"


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
