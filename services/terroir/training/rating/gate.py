"""What people's scores say about a style: the half of `rating_gate` that people decide."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from terroir.training.rating.scores import Scores

MIN_RATERS: Final = 2
"""One person's taste is no gate."""
MIN_GENERATED_ANSWERS: Final = 20
"""Below it the interval of a share is wider than ± 20 %."""
MIN_ON_BRAND: Final = 0.6
"""Least share of the generated pictures found on-brand."""
MIN_FOOLED: Final = 0.25
"""Least share of them taken for real; those who cannot tell at all take half of them for real."""


class Outcome(StrEnum):
    """Where a rating stands."""

    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True)
class PeopleVerdict:
    """An outcome and why, in words."""

    outcome: Outcome
    reason: str


def verdict_of(scores: Scores | None, raters: int) -> PeopleVerdict:
    """What the answers so far amount to. Bounds hold for the observed shares; the intervals are told beside them."""
    answers = scores.generated_answers if scores else 0
    if scores is None or raters < MIN_RATERS or answers < MIN_GENERATED_ANSWERS:
        return PeopleVerdict(
            Outcome.PENDING,
            f"{raters} raters and {answers} answers about generated pictures, needed are {MIN_RATERS} and "
            f"{MIN_GENERATED_ANSWERS}: have more people fill in the sheet (terroir train rate take)",
        )
    assert scores.on_brand is not None and scores.fooled is not None, "there are answers"
    told = (
        f"on-brand {scores.on_brand.value:.0%} ({scores.on_brand.low:.0%} to {scores.on_brand.high:.0%}, least "
        f"{MIN_ON_BRAND:.0%}), taken for real {scores.fooled.value:.0%} ({scores.fooled.low:.0%} to "
        f"{scores.fooled.high:.0%}, least {MIN_FOOLED:.0%})"
    )
    passed = scores.on_brand.value >= MIN_ON_BRAND and scores.fooled.value >= MIN_FOOLED
    return PeopleVerdict(Outcome.PASSED if passed else Outcome.FAILED, told)
