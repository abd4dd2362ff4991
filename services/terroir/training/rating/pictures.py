"""Pictures made alike: the same side, the same colours, the same encoding, the same number of bytes, nothing else."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from terroir.training.rating.errors import PictureUnusable

LONGEST_SIDE: Final = 512
_MOST_PIXELS: Final = 64 * 1024 * 1024
_PADDING_CHUNK: Final = b"paDd"
"""Ancillary, private, safe to copy (PNG specification, 5.4): viewers pass over it."""
_END_CHUNK: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def opened(data: bytes, name: str) -> Image.Image:
    """A picture as a viewer shows it, RGB, its orientation applied and everything else dropped.

    Raises PictureUnusable; pixels are only decoded once it is known that there are not too many.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")) as found:
            if found.width * found.height > _MOST_PIXELS:
                raise PictureUnusable(f"{name} has {found.width} × {found.height} pixels, more than {_MOST_PIXELS}")
            upright = ImageOps.exif_transpose(found)
            return _on_white(upright)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureUnusable(f"{name} is no picture that can be read: {type(error).__name__}") from error


def side_for(pictures: Sequence[Image.Image]) -> int:
    """The greatest side that no picture has to be enlarged for: an enlarged one is told by its softness."""
    return min(LONGEST_SIDE, *(min(picture.size) for picture in pictures))


def alike(pictures: Sequence[Image.Image], side: int) -> list[bytes]:
    """PNG files of square pictures, all of one length in bytes, in the order given."""
    squares = [_plain_png(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)) for picture in pictures]
    longest = max(len(square) for square in squares)
    return [_padded(square, longest - len(square)) for square in squares]


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        solid = picture.convert("RGBA")
        paper = Image.new("RGBA", solid.size, "white")
        paper.alpha_composite(solid)
        picture = paper
    rgb = picture.convert("RGB")
    rgb.info = {}
    return rgb


def _plain_png(picture: Image.Image) -> bytes:
    """Header, pixels and end alone."""
    bare = Image.frombytes("RGB", picture.size, picture.tobytes())
    file = io.BytesIO()
    bare.save(file, "PNG", compress_level=6)
    return file.getvalue()


def _padded(png: bytes, missing: int) -> bytes:
    """Every file gets the chunk, also the longest: its presence tells nothing."""
    body = bytes(missing)
    check = zlib.crc32(_PADDING_CHUNK + body)
    chunk = struct.pack(">I", len(body)) + _PADDING_CHUNK + body + struct.pack(">I", check)
    return png.removesuffix(_END_CHUNK) + chunk + _END_CHUNK
