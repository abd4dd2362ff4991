"""Read a picture file safely: what it is, its upright RGB pixels, or the stable code of why it can't be read."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from terroir.dataset.model import Gate, Unreadable

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_PLUGINS: Final = (
    PngImagePlugin, JpegImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin, TiffImagePlugin,
)  # fmt: skip
"""Imported for their effect: each registers its format, and no other format may be opened."""
_PNG_START: Final = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_PAPER: Final = (255, 255, 255)
_DAMAGE: Final = (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, struct.error, MemoryError)
"""What Pillow's decoders raise on damaged data."""


class UnreadableError(Exception):
    """The file is no picture that can be used; `fact` says why."""

    def __init__(self, fact: Unreadable) -> None:
        super().__init__(fact.message)
        self.fact = fact


def read_upright_rgb(data: bytes, pixel_limit: int) -> tuple[Image.Image, bool]:
    """Decode the first frame as 8-bit RGB, upright, transparency over white; also whether more frames follow.

    The header's size is checked before a pixel is decoded. Raises `UnreadableError`.
    """
    if data.startswith(_PNG_START) and len(data) >= 24:
        # Pillow reads on to the first pixels before it tells the size, so a bare header would look merely damaged.
        _ensure_decodable(_png_size(data), pixel_limit)
    opened = _open(data, pixel_limit)
    _ensure_decodable(opened.size, pixel_limit)
    try:
        opened.load()
        # A phone's MPO is one photograph with a depth map or thumbnail behind it, not an animation.
        animated = opened.format != "MPO" and bool(getattr(opened, "is_animated", False))
        opened.seek(0)
        _turn_upright(opened)
        return _to_rgb(opened), animated
    except _DAMAGE as error:
        raise UnreadableError(_damage(error)) from error


def _turn_upright(image: Image.Image) -> None:
    # A broken EXIF block says nothing about the orientation; the pixels are whole, so they stay as they are.
    with suppress(*_DAMAGE):
        # In place: a copy would double the memory of a picture at the pixel limit.
        ImageOps.exif_transpose(image, in_place=True)


def _open(data: bytes, pixel_limit: int) -> ImageFile.ImageFile:
    prefix = data[:16]
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(prefix) is not True:
            continue
        try:
            # Image.open raises its own bomb error without the size; the plugin reads the header only, and we check.
            return cast("Callable[[IO[bytes], str], ImageFile.ImageFile]", factory)(io.BytesIO(data), "")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            # WebP allocates its canvas in the constructor, so its plugin checks by itself.
            least = Image.MAX_IMAGE_PIXELS or pixel_limit
            raise UnreadableError(_too_large(f"more than {least}", least, pixel_limit)) from error
        except _DAMAGE as error:
            raise UnreadableError(_damage(error)) from error
    raise UnreadableError(
        Unreadable(
            gate=Gate.NOT_AN_IMAGE,
            value=0.0,
            threshold=1.0,
            message=f"the content is none of {', '.join(FORMATS)}; export it as PNG or JPEG and import again",
        )
    )


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _ensure_decodable(size: tuple[int, int], pixel_limit: int) -> None:
    width, height = size
    if width * height > pixel_limit:
        raise UnreadableError(_too_large(f"{width} × {height}", width * height, pixel_limit))


def _too_large(size: str, pixels: int, pixel_limit: int) -> Unreadable:
    return Unreadable(
        gate=Gate.PIXEL_LIMIT,
        value=float(pixels),
        threshold=float(pixel_limit),
        message=(
            f"{size} pixels exceed the limit of {pixel_limit} pixels (not decoded: it may be a decompression bomb); "
            "shrink it, or raise TERROIR_DATASET_PIXEL_LIMIT"
        ),
    )


def _damage(error: BaseException) -> Unreadable:
    text = str(error).lower()
    cut = isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text
    what = "the file ends before the picture does" if cut else "the picture data are damaged"
    return Unreadable(
        gate=Gate.TRUNCATED if cut else Gate.DAMAGED,
        value=0.0,
        threshold=1.0,
        message=f"{what}; copy or export it again and import the new file",
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _wide_to_rgb(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (*_PAPER, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _wide_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit and float greys to 8 bits; `convert` would clip them to white."""
    values: NDArray[np.float64] = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = 65535.0 if image.mode.startswith("I") else max(1.0, float(values.max(initial=0.0)))
    grey = np.clip(values * (255.0 / top), 0.0, 255.0).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
