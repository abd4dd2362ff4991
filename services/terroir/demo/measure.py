"""Figures of the contact sheet: style distance and prompt agreement, each against the base."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from terroir.demo.plan import PROMPTS, SEEDS, Column, Style
from terroir.demo.steps import Pictures
from terroir.scoring.clip import ClipScorer
from terroir.scoring.style import StyleRuler


@dataclass(frozen=True)
class ColumnFigures:
    """One column's figures: `distance` is ours / base by style (below 1 is nearer), `agreement` is ours / base."""

    title: str
    distance: dict[str, float] = field(default_factory=dict)
    agreement: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def measure(clip: Path, pictures: Pictures, columns: tuple[Column, ...], styles: list[Style]) -> list[ColumnFigures]:
    """Measure every column against the first, which is the base; agreement is with the prompt without trigger words."""
    scorer = ClipScorer(clip)
    drawn = {
        column.title: [pictures[column.title, prompt, seed] for prompt in PROMPTS for seed in SEEDS]
        for column in columns
    }
    texts = [prompt for prompt in PROMPTS for _ in SEEDS]
    base = drawn[columns[0].title]
    base_agreement = float(scorer.agreement(base, texts).mean())
    rulers = {style.adapter: StyleRuler(scorer, style.pictures(), base) for style in styles}
    return [
        ColumnFigures(
            title=column.title,
            distance={
                adapter: round(ruler.distance(drawn[column.title]) / ruler.distance(base), 3)
                for adapter, ruler in rulers.items()
            },
            agreement=round(float(scorer.agreement(drawn[column.title], texts).mean()) / base_agreement, 3),
        )
        for column in columns
    ]
