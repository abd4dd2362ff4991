"""How far pictures are from the look of a set: CLIP embeddings, and statistics of colour and patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from terroir.scoring.embedding import Embedder, Vectors

Statistics = npt.NDArray[np.float32]
_SIDE: Final = 64
_LEAST_SPREAD: Final = 0.01
"""Features lie within about -1 … 1; one that hardly varies must not decide a distance."""


def statistics(picture: Image.Image) -> Statistics:
    """Colour and patch statistics `[26]` of a picture, independent of its size.

    Mean and deviation of luma and both chroma channels, luma quantiles, saturation, hue histogram weighted by chroma,
    gradient strength at three scales, and the deviation within 8-pixel patches.
    """
    pixels = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32) / 255
    luma = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    blue, red = pixels[..., 2] - luma, pixels[..., 0] - luma
    saturation = pixels.max(-1) - pixels.min(-1)
    hue = np.arctan2(blue, red)
    histogram, _ = np.histogram(hue, bins=8, range=(-np.pi, np.pi), weights=saturation)
    gradients = []
    for scale in (1, 2, 4):
        coarse = luma.reshape(_SIDE // scale, scale, _SIDE // scale, scale).mean((1, 3))
        gradients.append(float(np.abs(np.diff(coarse, axis=0)).mean() + np.abs(np.diff(coarse, axis=1)).mean()))
    patches = luma.reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(64, 64).std(1)
    parts = [
        *(moment for channel in (luma, blue, red) for moment in (channel.mean(), channel.std())),
        *np.quantile(luma, (0.05, 0.25, 0.5, 0.75, 0.95)),
        saturation.mean(), saturation.std(),
        *(histogram / luma.size),
        *gradients,
        patches.mean(), patches.std(),
    ]  # fmt: skip
    return np.array(parts, dtype=np.float32)


class StyleRuler:
    """Measures distance to one style set; the unit is the spread of the style and base pictures together.

    Two parts with equal weight: the distance between mean CLIP embeddings, and that between mean statistics. Means over
    a set, so that what the pictures show matters little as long as the sets show many things.
    """

    def __init__(self, scorer: Embedder, style: Sequence[Image.Image], base: Sequence[Image.Image]) -> None:
        """`style` is the set itself, `base` what the model draws without the adapter."""
        self._scorer = scorer
        style_features, base_features = self._features(style), self._features(base)
        self._target = [part.mean(0) for part in style_features]
        self._spread = [
            np.maximum(np.concatenate(pair).std(0), _LEAST_SPREAD)
            for pair in zip(style_features, base_features, strict=True)
        ]

    def distance(self, pictures: Sequence[Image.Image]) -> float:
        """Root mean square of the standardised differences of the means, both parts averaged; 0 is the set itself."""
        parts = [
            float(np.sqrt(np.mean(((features.mean(0) - target) / spread) ** 2)))
            for features, target, spread in zip(self._features(pictures), self._target, self._spread, strict=True)
        ]
        return sum(parts) / len(parts)

    def _features(self, pictures: Sequence[Image.Image]) -> tuple[Vectors, Statistics]:
        return self._scorer.pictures(pictures), np.stack([statistics(picture) for picture in pictures])
