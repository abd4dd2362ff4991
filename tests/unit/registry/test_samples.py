"""Sample pictures: only whole, still pictures of known formats and bounded size are kept."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from terroir.registry.errors import SampleInvalid
from terroir.registry.moving.samples import MAX_SAMPLE_BYTES, Sample, read_sample

PICTURE = Image.effect_noise((40, 24), 60).convert("RGB")


def encoded(file_format: str, picture: Image.Image = PICTURE, **options: object) -> bytes:
    """A picture as a file."""
    out = io.BytesIO()
    picture.save(out, file_format, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be this large and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


@pytest.mark.parametrize(("file_format", "media_type"), [
    ("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"),
])  # fmt: skip
def test_a_picture_is_described_by_what_its_decoder_found(file_format: str, media_type: str) -> None:
    data = encoded(file_format)
    sample = read_sample(data, caption="a boat", version=3)
    assert sample == Sample(hashlib.sha256(data).hexdigest(), media_type, 40, 24, "a boat", 3)
    assert Sample.from_body(sample.to_body()) == sample


def test_what_a_file_says_about_itself_stays_part_of_it() -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("terroir", '{"seed": 7}')
    data = encoded("PNG", pnginfo=about)
    assert read_sample(data).digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "SAMPLE_INVALID"),
        (b"hello", "SAMPLE_INVALID"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SAMPLE_INVALID"),
        (encoded("GIF"), "SAMPLE_INVALID"),
        (encoded("BMP"), "SAMPLE_INVALID"),
        (encoded("TIFF"), "SAMPLE_INVALID"),
        (encoded("PNG")[:-40], "SAMPLE_INVALID"),
        (encoded("JPEG")[:300], "SAMPLE_INVALID"),
        (encoded("WEBP")[:60], "SAMPLE_INVALID"),
        (encoded("PNG", save_all=True, append_images=[PICTURE.rotate(180)]), "SAMPLE_INVALID"),
        (encoded("WEBP", save_all=True, append_images=[PICTURE.rotate(180)]), "SAMPLE_INVALID"),
        (encoded("MPO", save_all=True, append_images=[PICTURE.rotate(180)]), "SAMPLE_INVALID"),
        (png_header(50_000, 50_000), "SAMPLE_TOO_MANY_PIXELS"),
        (png_header(4097, 4096), "SAMPLE_TOO_MANY_PIXELS"),
        (encoded("PNG") + b"\0" * MAX_SAMPLE_BYTES, "SAMPLE_TOO_LARGE"),
    ],
    ids=[
        "empty", "text", "svg", "gif", "bmp", "tiff", "cut png", "cut jpeg", "cut webp", "apng", "animated webp", "mpo",
        "bomb", "one row too many", "too many bytes",
    ],
)  # fmt: skip
def test_what_is_no_bounded_still_picture_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(SampleInvalid) as refused:
        read_sample(data)
    assert (refused.value.reason, refused.value.field) == (reason, "picture")


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([encoded("PNG"), encoded("JPEG"), encoded("WEBP")]),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=8),
    st.integers(0, 600),
)
def test_a_damaged_picture_is_read_or_refused_and_nothing_else(
    data: bytes, flips: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(data[: len(data) - cut] if cut < len(data) else data)
    for position, value in flips:
        damaged[position % len(damaged)] = value
    with suppress(SampleInvalid):
        assert read_sample(bytes(damaged)).digest == hashlib.sha256(damaged).hexdigest()
