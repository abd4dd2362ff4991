"""Train the styles, draw all stacks, compare survival with the score: `python -m benchmarks.compatibility`.

Takes about half an hour on two cores. Whatever is finished lies in build/compatibility and is not made again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from benchmarks.adapters import base_key_table
from benchmarks.compatibility.drawing import Drawer, columns
from benchmarks.compatibility.report import report, save
from benchmarks.compatibility.styles import ALL, PAIRS, trained
from benchmarks.compatibility.survival import measure
from benchmarks.machine import describe
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.compatibility import compare_pairs
from terroir.tiny import BASE_DIR

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
RESULT: Final = CHECKOUT / "benchmarks" / "results" / "compatibility.json"


def main() -> None:
    """Everything, in order."""
    folder = CHECKOUT / "build" / "compatibility"
    table = base_key_table()
    adapters = {}
    for style in ALL:
        since = time.monotonic()
        adapters[style.name] = trained(style, folder, table)
        print(f"trained {style.name} in {time.monotonic() - since:.0f} s", flush=True)
    names = tuple(adapters)
    drawer = Drawer(Model(str(BASE_DIR)), adapters, folder)
    for column in columns(names, PAIRS):
        since = time.monotonic()
        drawer.pictures(column)
        print(f"drew {column.name} in {time.monotonic() - since:.0f} s", flush=True)
    distances, survival = measure(drawer, folder)
    at = {name: number for number, name in enumerate(names)}
    compared = compare_pairs(list(adapters.values()), [(at[first], at[second]) for first, second in PAIRS])
    overlaps = {(names[first], names[second]): overlap for (first, second), overlap in compared.items()}
    found = report(overlaps, survival, distances, describe(CHECKOUT))
    save(found, RESULT, CHECKOUT / "docs" / "images" / "compatibility.png")
    print(json.dumps({key: found[key] for key in ("chosen", "fit", "candidates", "interference", "levels")}, indent=1))


if __name__ == "__main__":
    main()
