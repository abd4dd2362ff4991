"""Training prints of no pictures that anybody trained on."""

from __future__ import annotations

import numpy as np

from terroir.scoring.training_print import Bounds, TrainingPrint

MODEL = "c" * 64


def made_up(count: int = 1, width: int = 3, seed: int = 0) -> TrainingPrint:
    """A print of noise."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((2, count, width))
    plain, mirrored = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float16)
    thumbnails = rng.integers(0, 256, (count, 64, 64, 3), np.uint8)
    return TrainingPrint(MODEL, thumbnails, plain, mirrored, Bounds(0.5, 0.25))
