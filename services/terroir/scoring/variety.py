"""How different pictures of one prompt are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from terroir.scoring.embedding import Embedder
from terroir.scoring.structure import structures


@dataclass(frozen=True)
class Variety:
    """Mean distance between two pictures of one prompt, `1 - cosine`, in two spaces."""

    embedding: float
    """By CLIP: what is shown."""
    structure: float
    """By pixels without brightness and contrast: what stands where."""

    def share_of(self, base: Variety) -> float:
        """Mean of both distances as shares of the base's, each 1 at most, so that one does not pay for the other.

        A base that draws the same picture whatever the seed has no variety to lose: its share counts 1.
        """
        pairs = ((self.embedding, base.embedding), (self.structure, base.structure))
        return float(np.mean([1.0 if theirs <= 0 else min(1.0, ours / theirs) for ours, theirs in pairs]))


def variety(embedder: Embedder, by_prompt: Sequence[Sequence[Image.Image]]) -> Variety:
    """Over all pairs of pictures that share a prompt; ValueError unless some prompt has two."""
    groups = [pictures for pictures in by_prompt if len(pictures) > 1]
    if not groups:
        raise ValueError("variety needs two pictures of one prompt (raise judge_seeds to 2)")
    return Variety(
        embedding=float(np.mean([_mean_distance(embedder.pictures(group)) for group in groups])),
        structure=float(np.mean([_mean_distance(structures(group)) for group in groups])),
    )


def _mean_distance(vectors: npt.NDArray[np.float32]) -> float:
    cosines = vectors @ vectors.T
    pairs = np.triu_indices(len(vectors), k=1)
    return float(np.mean(1 - cosines[pairs]))
