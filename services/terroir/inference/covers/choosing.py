"""Chooses variants that differ: by agreement with the prompt, by distance to each other, and away from copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

DIVERSITY: Final = 1.0
"""How much distance to what is chosen already counts beside agreement; see `diverse`."""


class Chooser(Protocol):
    """Picks the variants that are kept."""

    async def choose(self, prompt: str, pictures: Sequence[bytes], count: int, versions: Sequence[str], /) -> list[int]:
        """Positions of at most `count` pictures, the best first; none that repeats a training picture of `versions`."""
        ...


class FirstOnes:
    """Takes pictures as they come: where no CLIP knows what the base draws."""

    async def choose(self, _prompt: str, pictures: Sequence[bytes], count: int, _versions: Sequence[str]) -> list[int]:
        """The first `count`."""
        return list(range(min(count, len(pictures))))


def diverse(
    agreement: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], count: int, allowed: Sequence[int]
) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) over embedded pictures.

    `agreement` `[picture]` are cosines with the prompt, `vectors` `[picture, width]` unit vectors, `allowed` the
    positions that may be chosen. The first is what agrees best; each next one maximises its agreement, less DIVERSITY
    times its cosine with the nearest that is chosen. Both are taken as shares of their spread among the allowed, so
    that a CLIP whose cosines all lie close together chooses as one whose do not.
    """
    left = list(allowed)
    if not left or count <= 0:
        return []
    cosines = vectors @ vectors.T
    agree, alike = _spread(agreement[left]), _spread(cosines[np.ix_(left, left)])
    chosen = [int(np.argmax(agree))]
    while len(chosen) < min(count, len(left)):
        gain = agree - DIVERSITY * alike[:, chosen].max(axis=1)
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
    return [left[at] for at in chosen]


def _spread(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """From 0, the smallest, to 1, the largest; 0 where all are equal."""
    low, high = values.min(), values.max()
    scaled: npt.NDArray[np.float32] = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return scaled
