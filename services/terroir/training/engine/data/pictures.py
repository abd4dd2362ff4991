"""From a picture file to upright RGB pixels, and what of it is transparent."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from terroir.training.engine.data.buckets import Size
from terroir.training.engine.ports import Picture, Pictures
from terroir.training.errors import PictureUnreadable

Pixels = npt.NDArray[np.uint8]
"""RGB `[height, width, 3]`."""
MAX_PIXELS: Final = 80_000_000
"""As many as a dataset may admit; more are not decoded, for they may be a decompression bomb."""
MIN_SIDE: Final = 16
"""The least `resolution`; a smaller picture has nothing to teach."""
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_DAMAGE: Final = (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, struct.error)
"""What Pillow's decoders raise on damaged data."""
_WHITE: Final = (255, 255, 255, 255)


@dataclass(frozen=True)
class Decoded:
    """A picture as it is seen."""

    rgb: Image.Image
    """8-bit RGB, upright, what is transparent on white; of an animation the first frame."""
    alpha: Image.Image | None
    """Opacity, 8-bit grey of the same size, if the file says anything about it."""

    @property
    def size(self) -> Size:
        """Width and height, upright."""
        return Size(*self.rgb.size)

    def digest(self) -> str:
        """SHA-256 (hex) of the upright pixels, whatever file format they came in."""
        return pixels_digest(np.asarray(self.rgb, dtype=np.uint8))


def check_headers(pictures: Pictures) -> None:
    """Find files that are no pictures, too large or too small, without decoding any; raises PictureUnreadable."""
    for picture in pictures:
        with _opened(f"picture {picture.name}", picture.data):
            pass


def decode(picture: Picture) -> Decoded:
    """Decode a picture; raises PictureUnreadable."""
    with _opened(f"picture {picture.name}", picture.data) as image:
        _turn_upright(image)
        if _is_wide(image):
            return Decoded(_wide_to_grey(image).convert("RGB"), None)
        if not image.has_transparency_data:
            return Decoded(image.convert("RGB"), None)
        layers = image.convert("RGBA")
        on_white = Image.alpha_composite(Image.new("RGBA", layers.size, _WHITE), layers)
        return Decoded(on_white.convert("RGB"), layers.getchannel("A"))


def decode_mask(picture: Picture, mask: bytes) -> Image.Image:
    """8-bit grey, upright; raises PictureUnreadable naming the picture that the mask belongs to."""
    with _opened(f"the mask of picture {picture.name}", mask) as image:
        _turn_upright(image)
        return _wide_to_grey(image) if _is_wide(image) else image.convert("L")


def pixels_digest(pixels: Pixels) -> str:
    """SHA-256 (hex) of what is encoded; changes with every pixel and with the size."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@contextmanager
def _opened(what: str, data: bytes) -> Iterator[Image.Image]:
    """A file of which the header is read and in bounds; whatever is wrong with it is told as PictureUnreadable."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(what, image.size)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureUnreadable(
            f"{what} is not decoded ({error}); shrink it to {MAX_PIXELS} pixels or fewer", reason="PICTURE_TOO_LARGE"
        ) from error
    except _DAMAGE as error:
        raise PictureUnreadable(f"{what} cannot be decoded ({error}); remove or replace it") from error


def _check_size(what: str, size: tuple[int, int]) -> None:
    shown = f"{what} has {size[0]} × {size[1]} pixels"
    if size[0] * size[1] > MAX_PIXELS:
        raise PictureUnreadable(f"{shown}, the limit is {MAX_PIXELS} in all; shrink it", reason="PICTURE_TOO_LARGE")
    if min(size) < MIN_SIDE:
        raise PictureUnreadable(
            f"{shown}, each side needs {MIN_SIDE}; remove or replace it", reason="PICTURE_TOO_SMALL"
        )


def _turn_upright(image: Image.Image) -> None:
    image.load()
    # A broken EXIF block says nothing about the orientation; the pixels are whole, so they stay as they are.
    with suppress(*_DAMAGE):
        ImageOps.exif_transpose(image, in_place=True)


def _is_wide(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _wide_to_grey(image: Image.Image) -> Image.Image:
    """16-bit and float greys to 8 bits, as the dataset service shows them; `convert` would clip them to white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = 65535.0 if image.mode.startswith("I") else max(1.0, float(values.max(initial=0.0)))
    return Image.fromarray(np.clip(values * (255.0 / top), 0.0, 255.0).round().astype(np.uint8))
