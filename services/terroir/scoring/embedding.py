"""What the measures need of a model that embeds pictures and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Vectors = npt.NDArray[np.float32]
_MOST_REMEMBERED: Final = 512
"""Pictures, each with its vector."""


class Embedder(Protocol):
    """Turns pictures into vectors that lie close where the pictures show alike things."""

    def pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Unit vectors `[picture, width]`."""
        ...


class TextEmbedder(Embedder, Protocol):
    """The same for texts, in the same space."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors `[text, width]`."""
        ...


class Remembering:
    """Another embedder, asked once for each picture: several measures look at the same ones."""

    def __init__(self, embedder: TextEmbedder) -> None:
        """Remembers the last pictures, by object; they must not be changed."""
        self._embedder = embedder
        self._known: dict[int, tuple[Image.Image, Vectors]] = {}

    def pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Unit vectors `[picture, width]`."""
        missing = {id(one): one for one in pictures if id(one) not in self._known}
        if missing:
            kept = {id(one): self._known[id(one)] for one in pictures if id(one) in self._known}
            if len(self._known) + len(missing) > _MOST_REMEMBERED:
                self._known = kept
            new = self._embedder.pictures(list(missing.values()))
            self._known |= {key: (missing[key], vector) for key, vector in zip(missing, new, strict=True)}
        return np.stack([self._known[id(one)][1] for one in pictures])

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors `[text, width]`."""
        return self._embedder.texts(texts)
