"""Rasters as files: PNG, JPEG or WebP with provenance, and small JPEG previews."""

from __future__ import annotations

import io
from enum import StrEnum
from typing import Any, Final

from PIL import Image, PngImagePlugin

from terroir.inference.delivery.provenance import Provenance, ProvenanceProfile
from terroir.inference.engine.messages import Raster

PREVIEW_SIDE: Final = 256
_PREVIEW_QUALITY: Final = 75
_JPEG_SEGMENT_BYTES: Final = 65_000
"""An XMP packet must fit one JPEG segment of 65,533 bytes, its name included."""


class PictureFormat(StrEnum):
    """File formats, by Pillow's names."""

    PNG = "PNG"
    JPEG = "JPEG"
    WEBP = "WEBP"


def encode_picture(
    raster: Raster, picture_format: PictureFormat, provenance: Provenance, profile: ProvenanceProfile
) -> bytes:
    """The finished file; takes milliseconds a megapixel and more, so keep it off an event loop."""
    xmp = provenance.to_xmp(profile)
    options: dict[str, Any]
    if picture_format is PictureFormat.PNG:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("terroir", provenance.text(profile))
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": text}
    elif picture_format is PictureFormat.JPEG:
        if len(xmp) > _JPEG_SEGMENT_BYTES:  # the label and the identifier always fit
            xmp = provenance.to_xmp(ProvenanceProfile.PUBLIC)
        options = {"quality": 92, "xmp": xmp}
    else:
        options = {"quality": 90, "xmp": xmp}
    return _saved(_image(raster), picture_format, options)


def encode_preview(raster: Raster) -> bytes:
    """A JPEG of at most 256 pixels a side."""
    image = _image(raster)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return _saved(image, PictureFormat.JPEG, {"quality": _PREVIEW_QUALITY})


def _image(raster: Raster) -> Image.Image:
    return Image.frombytes("RGB", (raster.width, raster.height), raster.data)


def _saved(image: Image.Image, picture_format: PictureFormat, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, picture_format.value, **options)
    return buffer.getvalue()
