"""The seam between captioning and the tagger that runs in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from PIL import Image

from terroir.dataset.picture import read_upright_rgb

_LONG_SIDE: Final = 512
"""No CLIP tower looks closer than this, and it keeps messages to the tagger's process small."""


@dataclass(frozen=True)
class Thumbnail:
    """Upright RGB pixels, `width * height * 3` bytes, rows from the top."""

    width: int
    height: int
    rgb: bytes


@dataclass(frozen=True)
class Draft:
    """A drafted caption and its agreement with the picture (cosine, -1 … 1)."""

    text: str
    agreement: float


class Tagger(Protocol):
    """Drafts captions."""

    async def draft(self, pictures: Sequence[Thumbnail]) -> Sequence[Draft]:
        """One draft a picture, in order. Raises `TerroirError`."""
        ...

    async def close(self) -> None:
        """Free what the tagger holds; it may be used again afterwards."""
        ...


def thumbnail(data: bytes) -> Thumbnail:
    """Decode a picture file that was measured before, for the tagger."""
    image, _ = read_upright_rgb(data, sys.maxsize)
    image.thumbnail((_LONG_SIDE, _LONG_SIDE), Image.Resampling.LANCZOS)
    return Thumbnail(image.width, image.height, image.tobytes())
