"""Pictures as a model may have been shown them, whole, in crops and mirrored, and which of them is nearest to another.

All views of a large set would fill the memory, so they are kept coarse, and only the best candidates are looked at in
full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from terroir.scoring.structure import SIDE, Pixels, Structure, squares, structure_of, worst_tile_distance

KEPT_SIDE: Final = 64
"""Pixels of a kept picture."""
_CROPS: Final = ((64, 1), (58, 2), (51, 4))
"""Sides of the crops, and the steps between their places."""
_COARSE: Final = 8
"""Pixels of a coarse view."""
_CANDIDATES: Final = 12
_FULL_VIEWS: Final = 4096
"""Kept at once, 12 KiB each."""

Numbers = npt.NDArray[np.intp]
Thumbnails = npt.NDArray[np.uint8]
"""RGB `[picture, KEPT_SIDE, KEPT_SIDE, 3]`."""


def thumbnails_of(pictures: Sequence[Image.Image]) -> Thumbnails:
    """Each picture as it is kept: centre-cropped to a square and shrunk."""
    return np.rint(squares(pictures, KEPT_SIDE) * 255).astype(np.uint8)


class Views:
    """Every view of a set of pictures."""

    def __init__(self, thumbnails: Thumbnails) -> None:
        """Takes 62 KiB a picture."""
        self._pixels = thumbnails
        self._of_one = list(_places())
        coarse = [structure_of(self._cut(slice(None), *view, _COARSE)) for view in self._of_one]
        self._coarse = np.stack(coarse, axis=1).reshape(len(thumbnails) * len(self._of_one), -1)
        self._full = lru_cache(maxsize=_FULL_VIEWS)(self._in_full)

    def nearest(self, pictures: Sequence[Image.Image], held_out: Numbers | None = None) -> tuple[Numbers, Structure]:
        """Of each picture: position and worst tile's distance of the nearest one of the set.

        The one at the position `held_out` does not count; the set needs another then.
        """
        views, distances = self.nearest_views(pictures, held_out)
        return self.owners(views), distances

    def owners(self, views: Numbers) -> Numbers:
        """Positions of the pictures that views are of."""
        owners: Numbers = views // len(self._of_one)
        return owners

    def shown(self, view: int, picture: Image.Image) -> Image.Image:
        """A view of `picture`, its owner, cut out of it in full size."""
        side, left, top, mirrored = self._of_one[view % len(self._of_one)]
        square = min(picture.size)
        x, y = (picture.width - square) / 2, (picture.height - square) / 2
        scale = square / KEPT_SIDE
        box = (x + left * scale, y + top * scale, x + (left + side) * scale, y + (top + side) * scale)
        pixels = max(1, round(side * scale))
        cut = picture.resize((pixels, pixels), Image.Resampling.BICUBIC, box=box)
        return ImageOps.mirror(cut) if mirrored else cut

    def shown_small(self, view: int) -> Image.Image:
        """A view as it is kept, for where its owner is not at hand."""
        picture, place = divmod(view, len(self._of_one))
        side, left, top, mirrored = self._of_one[place]
        cut = Image.fromarray(self._pixels[picture, top : top + side, left : left + side])
        return ImageOps.mirror(cut) if mirrored else cut

    def nearest_views(
        self, pictures: Sequence[Image.Image], held_out: Numbers | None = None
    ) -> tuple[Numbers, Structure]:
        """Of each picture: number and worst tile's distance of the nearest view, as `nearest`."""
        small = squares(pictures, SIDE)
        full = structure_of(small)
        correlations = structure_of(_shrunk(small, _COARSE)) @ self._coarse.T
        owners = np.arange(len(self._coarse)) // len(self._of_one)
        if held_out is not None:
            correlations[owners[None, :] == held_out[:, None]] = -np.inf
        best = np.argpartition(correlations, -min(_CANDIDATES, len(owners)), axis=1)[:, -_CANDIDATES:]
        views = [np.stack([self._full(int(view)) for view in row]) for row in best]
        distances = np.stack([worst_tile_distance(one, of_one) for one, of_one in zip(full, views, strict=True)])
        distances[~np.isfinite(np.take_along_axis(correlations, best, axis=1))] = np.inf
        chosen, rows = distances.argmin(axis=1), np.arange(len(full))
        return best[rows, chosen], distances[rows, chosen]

    def _in_full(self, view: int) -> Structure:
        picture, place = divmod(view, len(self._of_one))
        full: Structure = structure_of(self._cut(slice(picture, picture + 1), *self._of_one[place], SIDE))[0]
        return full

    def _cut(self, which: slice, side: int, left: int, top: int, mirrored: bool, to: int) -> Pixels:
        cut = self._pixels[which, top : top + side, left : left + side].astype(np.float32) / np.float32(255)
        return _shrunk(cut[:, :, ::-1] if mirrored else cut, to)


def _places() -> Iterator[tuple[int, int, int, bool]]:
    """Side, left, top, whether mirrored."""
    for side, step in _CROPS:
        offsets = range(0, KEPT_SIDE - side + 1, step)
        for left in offsets:
            for top in offsets:
                yield side, left, top, False
                yield side, left, top, True


def _shrunk(pixels: Pixels, side: int) -> Pixels:
    """Area averages along both axes, of any size to any smaller one."""
    for axis in (1, 2):
        weights = _averaging(pixels.shape[axis], side)
        pixels = np.moveaxis(np.tensordot(weights, pixels, axes=(1, axis)), 0, axis)
    return pixels


@lru_cache(maxsize=16)
def _averaging(length: int, to: int) -> npt.NDArray[np.float32]:
    """`[to, length]`: what share of each pixel falls into each larger one."""
    edges = np.arange(to + 1) * (length / to)
    covered = np.minimum(edges[1:, None], np.arange(1, length + 1)) - np.maximum(edges[:-1, None], np.arange(length))
    return (np.maximum(covered, 0) * (to / length)).astype(np.float32)
