"""Shares with intervals, and agreement beyond chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_Z: Final = 1.959963984540054
"""Quantile of the normal distribution for 95 %, both sides together."""


@dataclass(frozen=True)
class Share:
    """A share of `of` answers, and the interval in which the true one lies with 95 %."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True)
class Agreement:
    """How far raters agree beyond what chance gives: 1 fully, 0 as by chance."""

    kappa: float
    method: str
    """`cohen` or `fleiss`."""
    pictures: int


def share(hits: int, of: int) -> Share | None:
    """Wilson's score interval (Wilson 1927, JASA 22:209), which stays within 0 … 1 for few answers too; None of none.

    It takes answers for independent; those of one person, or about one picture, are somewhat alike, so that with few
    people the true interval is wider.
    """
    if not 0 <= hits <= of:
        raise ValueError(f"{hits} of {of} (a share counts from 0 to all)")
    if of == 0:
        return None
    observed, square = hits / of, _Z**2
    centre = (observed + square / (2 * of)) / (1 + square / of)
    half = _Z / (1 + square / of) * math.sqrt(observed * (1 - observed) / of + square / (4 * of**2))
    # At the ends rounding must not push the observed share out of its own interval.
    return Share(observed, min(observed, max(0.0, centre - half)), max(observed, min(1.0, centre + half)), of)


def agreement(answers: Sequence[Sequence[bool]]) -> Agreement | None:
    """Agreement on pictures that all raters answered: a row a picture, a column a rater.

    Cohen's kappa for two raters (Cohen 1960), Fleiss' for more (Fleiss 1971). None for fewer than two raters, no
    pictures, or where everybody always said the same, so that chance alone gives full agreement.
    """
    raters = len(answers[0]) if answers else 0
    if any(len(row) != raters for row in answers):
        raise ValueError("rows of different lengths (a column a rater)")
    if raters < 2:
        return None
    observed, expected = (_cohen if raters == 2 else _fleiss)(answers)
    if math.isclose(expected, 1.0):
        return None
    kappa = (observed - expected) / (1 - expected)
    return Agreement(kappa, "cohen" if raters == 2 else "fleiss", len(answers))


def _cohen(answers: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """Observed and expected agreement; each rater has an own leaning."""
    count = len(answers)
    yes_one, yes_other = (sum(row[rater] for row in answers) / count for rater in (0, 1))
    observed = sum(row[0] == row[1] for row in answers) / count
    return observed, yes_one * yes_other + (1 - yes_one) * (1 - yes_other)


def _fleiss(answers: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """Observed and expected agreement; raters are taken for interchangeable."""
    raters, count = len(answers[0]), len(answers)
    pairs = raters * (raters - 1)
    alike = sum(n * (n - 1) / pairs for row in answers for n in Counter(row).values()) / count
    yes = sum(sum(row) for row in answers) / (raters * count)
    return alike, yes**2 + (1 - yes) ** 2
