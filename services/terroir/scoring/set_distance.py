"""Distance between two sets of embedded pictures, whatever their sizes."""

from __future__ import annotations

import numpy as np

from terroir.scoring.embedding import Vectors


def squared_set_distance(one: Vectors, other: Vectors) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel `(x · y + 1)³`; two draws of one set give about 0.

    KID's estimator (Bińkowski et al., arXiv 1801.01401), on CLIP's vectors as CMMD has them (Jayasumana et al., arXiv
    2401.09603). It may be a little below 0. ValueError for a set of one, whose spread nobody knows.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"set distance needs two pictures on each side, not {len(one)} and {len(other)}")
    return _within(one) + _within(other) - 2 * float(_kernel(one, other).mean())


def _within(vectors: Vectors) -> float:
    kernel = _kernel(vectors, vectors)
    count = len(vectors)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _kernel(one: Vectors, other: Vectors) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    products = one.astype(np.float64) @ other.astype(np.float64).T
    return (products + 1) ** 3
