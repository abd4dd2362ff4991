"""Pictures that callers send to start from, good and bad."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terroir.common.errors import InvalidArgument
from terroir.inference.request.init_picture import MAX_BYTES, read_init_picture


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(data: bytes, width: int = 8, height: int = 8) -> np.ndarray[Any, np.dtype[np.uint8]]:
    raster = read_init_picture(data, width, height)
    assert (raster.width, raster.height) == (width, height)
    return np.frombuffer(raster.data, np.uint8).reshape(height, width, 3)


def huge_png() -> bytes:
    """A header that promises 50,000 × 50,000 pixels and has none."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


RED = Image.new("RGB", (16, 16), (200, 10, 20))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"just text", "INIT_IMAGE_UNREADABLE"),
        (encoded(RED, "JPEG")[:200], "INIT_IMAGE_UNREADABLE"),
        (encoded(RED)[:60], "INIT_IMAGE_UNREADABLE"),
        (encoded(RED, "BMP"), "INIT_IMAGE_UNREADABLE"),
        (encoded(RED, "GIF"), "INIT_IMAGE_UNREADABLE"),
        (huge_png(), "INIT_IMAGE_TOO_LARGE"),
        (b"\0" * (MAX_BYTES + 1), "INIT_IMAGE_TOO_LARGE"),
    ],
    ids=["text", "cut JPEG", "cut PNG", "BMP", "GIF", "50,000 × 50,000", "too many bytes"],
)
def test_a_bad_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_init_picture(data, 64, 64)
    assert (refused.value.reason, refused.value.field) == (reason, "init_image.data")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_the_formats_are_read(file_format: str) -> None:
    assert np.abs(pixels(encoded(RED, file_format)).astype(int) - (200, 10, 20)).max() < 12


def test_the_middle_is_cropped_to_the_shape() -> None:
    image = Image.new("RGB", (30, 10), "black")
    image.paste("white", (10, 0, 20, 10))
    assert pixels(encoded(image)).min() > 200, "of three thirds the white one in the middle is left"


def test_transparent_parts_are_white() -> None:
    assert pixels(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))).min() == 255


@pytest.mark.parametrize(("mode", "value"), [("L", 128), ("CMYK", (0, 0, 0, 127)), ("I;16", 128 * 256), ("P", 128)])
def test_other_modes_become_rgb(mode: str, value: Any) -> None:
    image = Image.new(mode, (8, 8), value)
    if mode == "P":
        image.putpalette([component for level in range(256) for component in (level, level, level)])
    found = pixels(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert np.abs(found.astype(int) - 128).max() < 4


def test_exif_turns_the_picture() -> None:
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 8, 4))  # white on top
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = pixels(encoded(image, exif=exif))
    assert found[:4].max() == 0 and found[4:].min() == 255


def test_of_an_animation_the_first_picture_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    found = pixels(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert (found == (255, 0, 0)).all()
