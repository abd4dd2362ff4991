"""What stands where in a picture, blind to brightness and contrast: the ground of variety and of copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Structure = npt.NDArray[np.float32]
"""Unit vectors `[pictures, 3 · SIDE · SIDE]`, so that a dot product is a correlation."""
Pixels = npt.NDArray[np.float32]
"""RGB `[pictures, side, side, 3]`, 0 … 1."""
SIDE: Final = 32
_PLANES: Final = 3
_TILES: Final = 4
"""Along each side: tiles of 8 × 8 pixels."""
_LEAST_NORM: Final = 0.05
"""A quarter of a grey level from pixel to pixel: what is below it is rounding, not structure."""


def structures(pictures: Sequence[Image.Image]) -> Structure:
    """Each picture, centre-cropped to a square, as luma and two chroma planes without their means."""
    return structure_of(squares(pictures, SIDE))


def squares(pictures: Sequence[Image.Image], side: int) -> Pixels:
    """Each picture, centre-cropped to a square and shrunk to `side` pixels by averaging."""
    small = [ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BOX) for picture in pictures]
    return np.stack([np.asarray(picture, dtype=np.float32) for picture in small]) / np.float32(255)


def structure_of(pixels: Pixels) -> Structure:
    """The same of pixels; the vectors are as long as the pixels' side makes them."""
    luma = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    planes = np.stack([luma, pixels[..., 2] - luma, pixels[..., 0] - luma], axis=1)
    flat = (planes - planes.mean((2, 3), keepdims=True)).reshape(len(pixels), -1)
    unit: Structure = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _LEAST_NORM)
    return unit


def worst_tile_distance(one: Structure, other: Structure) -> npt.NDArray[np.float32]:
    """Distance of the two tiles, of 16, that differ most, `[…]` for `[…, 3 · SIDE · SIDE]`; broadcasts.

    Carlini et al. (arXiv 2301.13188, §4.1) found copies so: over the whole picture a common background makes strangers
    close, while two pictures whose worst tiles agree are the same picture. A tile that holds an even share of its
    picture differs by about 1.4 from a stranger's; 0 is equality.
    """
    difference = one - other
    side = SIDE // _TILES
    tiles = difference.reshape(*difference.shape[:-1], _PLANES, _TILES, side, _TILES, side)
    sums: npt.NDArray[np.float32] = np.square(tiles).sum(axis=(-5, -3, -1)) * _TILES * _TILES
    return np.sqrt(sums.max(axis=(-2, -1)))
