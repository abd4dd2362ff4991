"""What the measures need of a model that embeds pictures and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Vectors = npt.NDArray[np.float32]


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
