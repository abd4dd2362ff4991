"""Sizes that pictures are trained at: one square, or a set of about equal areas and different aspect ratios.

The set is that of NovelAI's aspect-ratio bucketing as kohya's sd-scripts have it: for every width that is a multiple of
`bucket_reso_steps`, the largest such height with which the area does not exceed resolution².
"""

from __future__ import annotations

import math
from typing import NamedTuple

from terroir.training.config import TrainConfig


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int


def bucket_sizes(config: TrainConfig) -> tuple[Size, ...]:
    """Every bucket's size, the widest last; one square without `enable_bucket`."""
    if not config.enable_bucket:
        return (Size(config.resolution, config.resolution),)
    step, area = config.bucket_reso_steps, config.resolution**2
    shortest = -(-config.min_bucket_reso // step) * step
    sizes = {Size(side := config.resolution // step * step, side)}
    for width in range(shortest, config.max_bucket_reso + 1, step):
        height = min(area // width, config.max_bucket_reso) // step * step
        if height >= shortest:
            sizes |= {Size(width, height), Size(height, width)}
    return tuple(sorted(sizes, key=lambda size: (size.width / size.height, size)))


class Buckets:
    """Which size each picture is trained at."""

    def __init__(self, config: TrainConfig) -> None:
        self.sizes = bucket_sizes(config)
        self._step = config.bucket_reso_steps
        self._keep_small = config.enable_bucket and config.bucket_no_upscale

    def size_of(self, picture: Size) -> Size:
        """The size whose aspect ratio is nearest by its logarithm, the larger of two that are equally near.

        With `bucket_no_upscale` no side is longer than the picture's, rounded down to `bucket_reso_steps`; one step is
        the least, so only a picture smaller than that is enlarged.
        """
        nearest = min(self.sizes, key=lambda size: (_distance(size, picture), -size.width * size.height, size))
        if not self._keep_small:
            return nearest
        width, height = (
            max(self._step, min(side, own) // self._step * self._step)
            for side, own in zip(nearest, picture, strict=True)
        )
        return Size(width, height)


def _distance(size: Size, picture: Size) -> float:
    return abs(math.log(size.width * picture.height) - math.log(size.height * picture.width))
