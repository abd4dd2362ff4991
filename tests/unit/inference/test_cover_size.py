"""Sizes of covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.inference.request.cover_size import SIZE_MULTIPLE, AspectRatio, cover_size


@pytest.mark.parametrize(
    ("ratio", "native", "size"),
    [
        (AspectRatio.SQUARE, 64, (64, 64)),
        (AspectRatio.SQUARE, 512, (512, 512)),
        (AspectRatio.SQUARE, 1024, (1024, 1024)),
        (AspectRatio.WIDE_16_9, 64, (72, 40)),
        (AspectRatio.WIDE_16_9, 512, (640, 360)),
        (AspectRatio.WIDE_16_9, 1024, (1408, 792)),
        (AspectRatio.TALL_3_4, 64, (48, 64)),
        (AspectRatio.TALL_3_4, 512, (432, 576)),
        (AspectRatio.TALL_3_4, 1024, (888, 1184)),
    ],
)
def test_the_documented_sizes(ratio: AspectRatio, native: int, size: tuple[int, int]) -> None:
    assert cover_size(ratio, native) == size


@given(st.sampled_from(AspectRatio), st.integers(8, 128).map(lambda steps: steps * 8))
def test_a_size_can_be_drawn_and_is_near_its_ratio_and_the_native_area(ratio: AspectRatio, native: int) -> None:
    width, height = cover_size(ratio, native)
    across, down = ratio.value
    assert width % SIZE_MULTIPLE == height % SIZE_MULTIPLE == 0
    assert 0.7 <= width * height / native**2 <= 1.15
    assert abs(width * down / (height * across) - 1) < 0.05
