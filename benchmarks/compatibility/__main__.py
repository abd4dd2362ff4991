"""Train the styles, draw all stacks, compare survival with the score: `python -m benchmarks.compatibility`.

Takes about half an hour on two cores. Whatever is finished lies in build/compatibility and is not made again.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Final

from benchmarks.adapters import base_key_table
from benchmarks.compatibility.drawing import Drawer, columns
from benchmarks.compatibility.report import report, save
from benchmarks.compatibility.styles import STYLES, UNSEEN, trained
from benchmarks.compatibility.survival import measure
from benchmarks.machine import describe
from terroir.inference.engine.model import Model
from terroir.lora.adapter import Adapter
from terroir.lora.compatibility import Overlap, compare_pairs
from terroir.tiny import BASE_DIR

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
RESULT: Final = CHECKOUT / "benchmarks" / "results" / "compatibility.json"


def main() -> None:
    """Everything, in order."""
    folder = CHECKOUT / "build" / "compatibility"
    table = base_key_table()
    adapters = {}
    for style in (*STYLES, *UNSEEN):
        since = time.monotonic()
        adapters[style.name] = trained(style, folder, table)
        print(f"trained {style.name} in {time.monotonic() - since:.0f} s", flush=True)
    names = tuple(adapters)
    drawer = Drawer(Model(str(BASE_DIR)), adapters, folder)
    for column in columns(names):
        since = time.monotonic()
        drawer.pictures(column)
        print(f"drew {column.name} in {time.monotonic() - since:.0f} s", flush=True)
    distances, survival = measure(drawer, folder)
    overlaps = {(names[a], names[b]): found for (a, b), found in _overlaps(list(adapters.values())).items()}
    found = report(overlaps, survival, distances, describe(CHECKOUT))
    save(found, RESULT, CHECKOUT / "docs" / "images" / "compatibility.png")
    print(json.dumps({key: found[key] for key in ("chosen", "fit", "candidates", "interference", "levels")}, indent=1))


def _overlaps(adapters: list[Adapter]) -> dict[tuple[int, int], Overlap]:
    return compare_pairs(adapters, list(itertools.combinations(range(len(adapters)), 2)))


if __name__ == "__main__":
    main()
