"""Sizes of covers by their shape."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Final

SIZE_MULTIPLE: Final = 8
"""Pixels; an autoencoder of Stable Diffusion takes no other sides."""
_LEAST_AREA: Final = 0.7
_MOST_AREA: Final = 1.15
"""Of the native area: a model draws best near the area that it was trained on."""


class AspectRatio(Enum):
    """Width to height."""

    SQUARE = (1, 1)
    WIDE_16_9 = (16, 9)
    TALL_3_4 = (3, 4)


@lru_cache(maxsize=64)
def cover_size(ratio: AspectRatio, native_side: int) -> tuple[int, int]:
    """Width and height in pixels, multiples of 8: of 0.7 to 1.15 times the native area, those closest to the ratio.

    Of equally close ones that nearest to the native area. So native 512 gives 640 × 360 and 432 × 576, 1024 gives
    1408 × 792 and 888 × 1184, 64 gives 72 × 40 and 48 × 64.
    """
    across, down = ratio.value
    area = native_side * native_side
    sides = range(SIZE_MULTIPLE, 2 * native_side + 1, SIZE_MULTIPLE)
    candidates = [
        (width, height)
        for width in sides
        for height in sides
        if _LEAST_AREA * area <= width * height <= _MOST_AREA * area
    ]

    def distance(size: tuple[int, int]) -> tuple[float, int]:
        width, height = size
        return abs(width * down / (height * across) - 1), abs(width * height - area)

    return min(candidates, key=distance)
