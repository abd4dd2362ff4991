"""How much of each style is left in a stack, from distances to the styles' own pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compatibility.drawing import Column, Drawer, columns
from benchmarks.compatibility.styles import STYLES, pictures
from terroir.scoring.clip import ClipScorer
from terroir.scoring.style import StyleRuler
from terroir.tiny import CLIP_DIR


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
    if not path.exists():
        path.write_text(json.dumps(_distances(drawer), indent=1), encoding="utf-8")
    distances: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    base = distances["base"]

    def left(style: str, column: Column) -> float:
        alone = distances[Column((style,)).name][style]
        return (base[style] - distances[column.name][style]) / (base[style] - alone)

    found = {}
    for column in columns(tuple(style.name for style in STYLES)):
        if len(column.styles) == 2:
            first, second = column.styles
            found[first, second] = Survival(left(first, column), left(second, column))
    return distances, found


def _distances(drawer: Drawer) -> dict[str, dict[str, float]]:
    scorer = ClipScorer(CLIP_DIR)
    base = drawer.pictures(Column())
    rulers = {style.name: StyleRuler(scorer, [p for p, _ in pictures(style)], base) for style in STYLES}
    return {
        column.name: {
            # A column is measured against the styles in it; the base, and for the record each style alone, against all.
            name: ruler.distance(drawer.pictures(column))
            for name, ruler in rulers.items()
            if len(column.styles) < 2 or name in column.styles
        }
        for column in columns(tuple(rulers))
    }
