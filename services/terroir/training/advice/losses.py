"""What a loss curve says: whether it rises, and how much single steps scatter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, pvariance
from typing import Final

LEAST_STEPS: Final = 40
"""Fewer say nothing: the loss of a step depends mostly on the noise level that it drew."""
LEAST_STEPS_OF_A_FALL: Final = 400
"""A quarter of that shows a fall by a fifth of single losses' scatter."""
RISE: Final = 1.5
"""A last quarter this many times above the second one is a run that leaves the valley."""
SCATTER: Final = 0.5
"""Standard deviation over mean of single losses; on the tiny base 0.53 with one picture a step, 0.35 with two."""


def rises(losses: Sequence[float]) -> bool:
    """Whether the last quarter lies far above the second (the first is the warm-up)."""
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < LEAST_STEPS:
        return False
    quarter = len(known) // 4
    early, late = fmean(known[quarter : 2 * quarter]), fmean(known[-quarter:])
    return late > RISE * early > 0


def stays(losses: Sequence[float]) -> bool:
    """Whether the last quarter is no lower than the first, although there are steps enough to see it.

    Only a difference of two standard errors counts as a fall.
    """
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < LEAST_STEPS_OF_A_FALL:
        return False
    quarter = len(known) // 4
    early, late = known[:quarter], known[-quarter:]
    error = math.sqrt((pvariance(early) + pvariance(late)) / quarter)
    return fmean(early) - fmean(late) < 2 * error


def scatter(losses: Sequence[float]) -> float:
    """Standard deviation over mean in the second half, 0 where there are too few.

    From differences of neighbours (von Neumann et al., Ann. Math. Stat. 12, 1941), so that a loss that falls is not
    taken for one that scatters.
    """
    known = [loss for loss in losses if math.isfinite(loss)]
    half = known[len(known) // 2 :]
    mean = fmean(half) if len(known) >= LEAST_STEPS else 0.0
    if mean <= 0:
        return 0.0
    return math.sqrt(fmean((after - before) ** 2 for before, after in pairwise(half)) / 2) / mean
