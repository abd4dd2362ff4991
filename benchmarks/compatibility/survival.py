"""How much of each style is left in a stack, from distances to the styles' own pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.compatibility.drawing import Column, Drawer, columns
from benchmarks.compatibility.styles import ALL, PAIRS, pictures
from terroir.scoring.clip import ClipScorer
from terroir.scoring.style import StyleRuler
from terroir.tiny import CLIP_DIR

NAMES: Final = tuple(style.name for style in ALL)


@dataclass(frozen=True)
class Survival:
    """Of one pair, both stacked at one weight. 1: as much of the style as alone at that weight; 0: no more than base.

    Above 1 the other adapter adds to the style, below 0 it leads away from it further than the base is.
    """

    first: float
    second: float

    @property
    def lesser(self) -> float:
        """Of the style that suffers more: what the score is held against."""
        return min(self.first, self.second)


def measure(drawer: Drawer, folder: Path) -> tuple[dict[str, dict[str, float]], dict[tuple[str, str], Survival]]:
    """Distances by column and style, kept in `folder`, and survival by pair."""
    path = folder / "distances.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    distances = _distances(drawer, known)
    path.write_text(json.dumps(distances, indent=1), encoding="utf-8")
    base = distances["base"]

    def left(style: str, column: Column) -> float:
        alone = distances[Column((style,)).name][style]
        return (base[style] - distances[column.name][style]) / (base[style] - alone)

    found = {}
    for first, second in PAIRS:
        column = Column((first, second))
        found[first, second] = Survival(left(first, column), left(second, column))
    return distances, found


def _distances(drawer: Drawer, known: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """A column is measured against the styles in it; the base, and for the record each style alone, against all."""
    wanted = {column: column.styles if len(column.styles) == 2 else NAMES for column in columns(NAMES, PAIRS)}
    if all(name in known.get(column.name, {}) for column, names in wanted.items() for name in names):
        return {column: dict(row) for column, row in known.items()}
    scorer = ClipScorer(CLIP_DIR)
    base = drawer.pictures(Column())
    rulers = {style.name: StyleRuler(scorer, [picture for picture, _ in pictures(style)], base) for style in ALL}
    return {
        column.name: {
            name: known.get(column.name, {}).get(name) or rulers[name].distance(drawer.pictures(column))
            for name in names
        }
        for column, names in wanted.items()
    }
