"""Memorisation: whether a picture repeats one that the model was trained on.

A loss cannot tell (it is higher under memorisation: arXiv 2509.25705), so pictures are compared with the training set
by pixels and by embedding, as Somepalli et al. (arXiv 2212.03860) and Carlini et al. (arXiv 2301.13188) do. The bounds
come from the set itself: how far its real pictures are from each other.

All that is compared with stands in a `TrainingPrint`, which goes where the pictures do not: with a published style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from terroir.scoring.embedding import Embedder, Vectors
from terroir.scoring.training_print import Bounds, TrainingPrint, halves, units
from terroir.scoring.views import KEPT_SIDE, Numbers, Views, thumbnails_of

_COPY_SHARE: Final = 0.5
"""A copy is at most so far from a training picture, as a share of how far real pictures are from their nearest."""
_PIXEL_BOUNDS: Final = (0.35, 0.75)
"""The bound by pixels lies within: a set with duplicates must not excuse copies, nor a set of strangers accuse."""
_STRANGERS: Final = 1.4
"""Distance by pixels of two pictures that have nothing in common, for a set of one."""


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

    def __init__(self, embedder: Embedder, known: TrainingPrint, pictures: Sequence[Image.Image] = ()) -> None:
        """`embedder` must be the model that the print names.

        `pictures`, where they are at hand, are those of the print: crops are cut out of them rather than out of its
        thumbnails. For pictures of 64 pixels that is the same.
        """
        self.known = known
        self.bounds = known.bounds
        self._embedder = embedder
        self._pictures = list(pictures)
        self._views = Views(known.thumbnails)
        self._plain, self._mirrored = units(known.plain), units(known.mirrored)

    @classmethod
    def of(cls, embedder: Embedder, pictures: Sequence[Image.Image], model: str) -> TrainingSet:
        """Of pictures, by a model of this digest; raises as `print_of`."""
        return cls(embedder, print_of(embedder, pictures, model), pictures)

    def nearest(self, pictures: Sequence[Image.Image]) -> list[Nearest]:
        """The nearest training picture of each."""
        views, pixels = self._views.nearest_views(pictures)
        numbers = self._views.owners(views)
        cosines = self._cosines(pictures, views, pixels)
        return [
            Nearest(
                int(number), float(distance), float(1 - cosine),
                is_copy=bool(distance <= self.bounds.pixels and 1 - cosine <= self.bounds.embedding),
            )
            for number, distance, cosine in zip(numbers, pixels, cosines, strict=True)
        ]  # fmt: skip

    def _cosines(
        self, pictures: Sequence[Image.Image], views: Numbers, pixels: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """With the closest of the set; where pixels say copy, the view itself counts too.

        A crop shows CLIP another picture than the whole: without its view a cropped copy goes free.
        """
        embedded = self._embedder.pictures(pictures)
        cosines: npt.NDArray[np.float32] = np.maximum(embedded @ self._plain.T, embedded @ self._mirrored.T).max(axis=1)
        suspects = np.flatnonzero(pixels <= self.bounds.pixels)
        if len(suspects):
            of_views = self._with_views([pictures[int(at)] for at in suspects], embedded[suspects], views[suspects])
            cosines[suspects] = np.maximum(cosines[suspects], of_views)
        return cosines

    def _with_views(
        self, suspects: Sequence[Image.Image], embedded: Vectors, views: Numbers
    ) -> npt.NDArray[np.float32]:
        """Of each suspect with the view that it may be a copy of."""
        if self._pictures:
            owners = self._views.owners(views)
            cut = [
                self._views.shown(int(view), self._pictures[owner]) for view, owner in zip(views, owners, strict=True)
            ]
        else:
            cut = [self._views.shown_small(int(view)) for view in views]
            if any(min(one.size) > KEPT_SIDE for one in suspects):
                # To a CLIP of 224 pixels a sharp picture and a thumbnail differ, so both are made thumbnails.
                embedded = self._embedder.pictures([_no_sharper(one) for one in suspects])
        together: npt.NDArray[np.float32] = np.einsum("pw,pw->p", embedded, self._embedder.pictures(cut))
        return together


def print_of(embedder: Embedder, pictures: Sequence[Image.Image], model: str) -> TrainingPrint:
    """What tells copies of `pictures`, `model` being the digest of the embedder.

    Raises ValueError without any picture, and TrainingPrintInvalid if what the embedder gives are no unit vectors.
    """
    if not pictures:
        raise ValueError("no training pictures to compare with")
    thumbnails, plain = thumbnails_of(pictures), halves(embedder.pictures(pictures))
    mirrored = halves(embedder.pictures([ImageOps.mirror(picture) for picture in pictures]))
    bounds = Bounds(_pixel_bound(Views(thumbnails), pictures), _embedding_bound(units(plain)))
    return TrainingPrint(model, thumbnails, plain, mirrored, bounds)


def _pixel_bound(views: Views, pictures: Sequence[Image.Image]) -> float:
    """Each real picture held out in turn: half as far as it is from the nearest of the others, at the median.

    The median, so that a few duplicates in the set change nothing.
    """
    typical = _STRANGERS
    if len(pictures) > 1:
        _, distances = views.nearest(pictures, held_out=np.arange(len(pictures)))
        typical = float(np.median(distances))
    return float(np.clip(_COPY_SHARE * typical, *_PIXEL_BOUNDS))


def _embedding_bound(vectors: Vectors) -> float:
    """How far two real pictures are from each other, at the median: what is further off shows something else."""
    if len(vectors) == 1:
        return 1.0
    pairs: npt.NDArray[np.float32] = (1 - vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]
    return float(np.median(pairs))


def _no_sharper(picture: Image.Image) -> Image.Image:
    """As a thumbnail would show it, if it is larger than one."""
    if min(picture.size) <= KEPT_SIDE:
        return picture
    return Image.fromarray(thumbnails_of([picture])[0])
