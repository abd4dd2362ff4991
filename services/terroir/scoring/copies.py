"""Memorisation: whether a picture repeats one that the model was trained on.

A loss cannot tell (it is higher under memorisation: arXiv 2509.25705), so pictures are compared with the training set
by pixels and by embedding, as Somepalli et al. (arXiv 2212.03860) and Carlini et al. (arXiv 2301.13188) do. The bounds
come from the set itself: how far its real pictures are from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from terroir.scoring.embedding import Embedder, Vectors
from terroir.scoring.views import Numbers, Views

_COPY_SHARE: Final = 0.5
"""A copy is at most so far from a training picture, as a share of how far real pictures are from their nearest."""
_PIXEL_BOUNDS: Final = (0.35, 0.75)
"""The bound by pixels lies within: a set with duplicates must not excuse copies, nor a set of strangers accuse."""
_STRANGERS: Final = 1.4
"""Distance by pixels of two pictures that have nothing in common, for a set of one."""


@dataclass(frozen=True)
class Bounds:
    """What counts as a copy: within both distances."""

    pixels: float
    embedding: float


@dataclass(frozen=True)
class Nearest:
    """The training picture that a picture is closest to by pixels, and how close the set comes by embedding."""

    training_picture: int
    """Position in the training set."""
    pixels: float
    """Distance of the worst tile, over all views of that picture; see `structure.worst_tile_distance`."""
    embedding: float
    """`1 - cosine` to the nearest training picture, mirrored or not, or to the view that the pixels are closest to."""
    is_copy: bool


class TrainingSet:
    """The pictures that a model was trained on, and how close they are to each other."""

    def __init__(self, embedder: Embedder, pictures: Sequence[Image.Image]) -> None:
        """ValueError without any picture."""
        if not pictures:
            raise ValueError("no training pictures to compare with")
        self._embedder = embedder
        self._pictures = list(pictures)
        self._views = Views(pictures)
        self._plain = embedder.pictures(pictures)
        self._mirrored = embedder.pictures([ImageOps.mirror(picture) for picture in pictures])
        self.bounds = Bounds(self._pixel_bound(pictures), self._embedding_bound())

    def nearest(self, pictures: Sequence[Image.Image]) -> list[Nearest]:
        """The nearest training picture of each."""
        views, pixels = self._views.nearest_views(pictures)
        numbers = self._views.owners(views)
        cosines = self._cosines(self._embedder.pictures(pictures), numbers, views, pixels)
        return [
            Nearest(
                int(number), float(distance), float(1 - cosine),
                is_copy=bool(distance <= self.bounds.pixels and 1 - cosine <= self.bounds.embedding),
            )
            for number, distance, cosine in zip(numbers, pixels, cosines, strict=True)
        ]  # fmt: skip

    def _cosines(
        self, embedded: Vectors, numbers: Numbers, views: Numbers, pixels: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """With the closest of the set; where pixels say copy, the view itself counts too.

        A crop shows CLIP another picture than the whole: without its view a cropped copy goes free.
        """
        cosines: npt.NDArray[np.float32] = np.maximum(embedded @ self._plain.T, embedded @ self._mirrored.T).max(axis=1)
        suspects = np.flatnonzero(pixels <= self.bounds.pixels)
        if len(suspects):
            cut = [self._views.shown(int(views[at]), self._pictures[numbers[at]]) for at in suspects]
            of_views = np.einsum("pw,pw->p", embedded[suspects], self._embedder.pictures(cut))
            cosines[suspects] = np.maximum(cosines[suspects], of_views)
        return cosines

    def _pixel_bound(self, pictures: Sequence[Image.Image]) -> float:
        """Each real picture held out in turn: half as far as it is from the nearest of the others, at the median.

        The median, so that a few duplicates in the set change nothing.
        """
        typical = _STRANGERS
        if len(pictures) > 1:
            _, distances = self._views.nearest(pictures, held_out=np.arange(len(pictures)))
            typical = float(np.median(distances))
        return float(np.clip(_COPY_SHARE * typical, *_PIXEL_BOUNDS))

    def _embedding_bound(self) -> float:
        """How far two real pictures are from each other, at the median: what is further off shows something else."""
        if len(self._plain) == 1:
            return 1.0
        pairs: npt.NDArray[np.float32] = (1 - self._plain @ self._plain.T)[np.triu_indices(len(self._plain), k=1)]
        return float(np.median(pairs))
