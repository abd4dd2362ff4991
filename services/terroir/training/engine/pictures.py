"""From a picture file to the pixels that are trained on."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from terroir.training.engine.ports import Picture
from terroir.training.errors import PictureUnreadable


def load_pixels(picture: Picture, resolution: int) -> npt.NDArray[np.uint8]:
    """RGB pixels `[resolution, resolution, 3]`: turned upright by EXIF, on white, resized to cover, centre-cropped.

    Raises PictureUnreadable.
    """
    try:
        with Image.open(io.BytesIO(picture.data)) as opened:
            upright = ImageOps.exif_transpose(opened)
            square = ImageOps.fit(_on_white(upright), (resolution, resolution), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise PictureUnreadable(f"picture {picture.name} cannot be decoded ({error}); remove or replace it") from error
    return np.asarray(square, dtype=np.uint8)


def pixels_digest(pixels: npt.NDArray[np.uint8]) -> str:
    """SHA-256 (hex) of what is encoded; changes with every pixel and with the size."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
