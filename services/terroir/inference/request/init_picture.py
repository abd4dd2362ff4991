"""A caller's picture to start from, made safe and brought to the size that is drawn."""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from terroir.common.errors import InvalidArgument
from terroir.inference.engine.messages import Raster

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_PIXELS: Final = 50_000_000
"""Decoded; beyond it a small file could take gigabytes."""
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_FIELD: Final = "init_image.data"


def read_init_picture(data: bytes, width: int, height: int) -> Raster:
    """Decode, turn as its EXIF says, lay on white where it is transparent, crop around the centre, resize (Lanczos).

    Of an animation the first picture counts. Raises InvalidArgument: INIT_IMAGE_TOO_LARGE, INIT_IMAGE_UNREADABLE.
    Takes tens of milliseconds a megapixel: keep it off an event loop.
    """
    if len(data) > MAX_BYTES:
        raise _too_large(f"the picture has {len(data)} bytes, at most {MAX_BYTES} are taken; scale it down")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower, and an error
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(
                    f"the picture has {image.width} × {image.height} pixels, at most {MAX_PIXELS} are taken; "
                    "scale it down"
                )
            image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(f"the picture is far beyond {MAX_PIXELS} pixels; scale it down") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidArgument(
            f"the picture can't be read as {', '.join(_FORMATS)} ({type(error).__name__}); send such a file, whole",
            reason="INIT_IMAGE_UNREADABLE",
            field=_FIELD,
        ) from error
    fitted = ImageOps.fit(_rgb(ImageOps.exif_transpose(image)), (width, height), Image.Resampling.LANCZOS)
    return Raster(width, height, fitted.tobytes())


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")  # Pillow would clip 16 bits at 255
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _too_large(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="INIT_IMAGE_TOO_LARGE", field=_FIELD)
