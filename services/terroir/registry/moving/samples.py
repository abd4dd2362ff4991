"""Sample pictures of adapters: small, whole and of a known format, kept byte by byte as they came.

What a picture's file says about how it was made is part of a sample, so nothing is stripped from it.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

from terroir.registry.errors import SampleInvalid

MAX_SAMPLE_BYTES: Final = 4 * 1024 * 1024
MAX_SAMPLE_PIXELS: Final = 4096 * 4096
MAX_SAMPLES: Final = 32
MAX_CAPTION_CHARACTERS: Final = 500
_MEDIA_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_PLUGINS: Final = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
"""Imported for their effect: each registers its format, and no other format may be opened."""
_DAMAGE: Final = (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, struct.error, MemoryError)
"""What Pillow's decoders raise on damaged data."""


@dataclass(frozen=True)
class Sample:
    """What is known of a sample picture; the picture is the blob of its digest."""

    digest: str
    media_type: str
    width: int
    height: int
    caption: str = ""
    version: int | None = None
    """Number of the version that drew it."""

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Sample:
        """Inverse of `to_body`."""
        return Sample(**body)


def read_sample(data: bytes, *, caption: str = "", version: int | None = None) -> Sample:
    """Decode a picture to prove that it is one; raises SampleInvalid with a reason a cause.

    The header's size is checked before a pixel is decoded, so a decompression bomb costs nothing.
    """
    if len(data) > MAX_SAMPLE_BYTES:
        raise SampleInvalid(
            f"the picture has {len(data)} bytes, at most {MAX_SAMPLE_BYTES} are allowed; shrink it or save it as WebP",
            reason="SAMPLE_TOO_LARGE",
            field="picture",
        )
    try:
        with Image.open(io.BytesIO(data), formats=tuple(_MEDIA_TYPES)) as picture:
            _ensure_small(*picture.size)
            media_type = _MEDIA_TYPES.get(picture.format or "")
            if media_type is None or getattr(picture, "n_frames", 1) != 1:
                raise _no_picture("holds several pictures")
            picture.load()
            width, height = picture.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(f"more than {Image.MAX_IMAGE_PIXELS}") from error
    except UnidentifiedImageError as error:
        raise _no_picture("is none") from error
    except _DAMAGE as error:
        raise _no_picture(f"is damaged ({type(error).__name__})") from error
    return Sample(hashlib.sha256(data).hexdigest(), media_type, width, height, caption, version)


def _ensure_small(width: int, height: int) -> None:
    if width * height > MAX_SAMPLE_PIXELS:
        raise _too_many_pixels(f"{width} × {height}")


def _too_many_pixels(size: str) -> SampleInvalid:
    return SampleInvalid(
        f"the picture has {size} pixels, at most {MAX_SAMPLE_PIXELS} are allowed (it was not decoded); shrink it",
        reason="SAMPLE_TOO_MANY_PIXELS",
        field="picture",
    )


def _no_picture(what: str) -> SampleInvalid:
    return SampleInvalid(f"the file {what}; send one still PNG, JPEG or WebP picture", field="picture")
