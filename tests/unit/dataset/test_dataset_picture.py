from __future__ import annotations

import numpy as np
import pytest
from dataset_files import drawn, encoded, png_header
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from terroir.dataset.model import Gate
from terroir.dataset.picture import UnreadableError, read_upright_rgb

LIMIT = 1_000_000
pillow_may_warn = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def refused(data: bytes, limit: int = LIMIT) -> Gate:
    with pytest.raises(UnreadableError) as caught:
        read_upright_rgb(data, limit)
    assert caught.value.fact.message
    return caught.value.fact.gate


@pytest.mark.parametrize(
    ("data", "gate"),
    [
        (b"", Gate.NOT_AN_IMAGE),
        (b"a text file that somebody named cover.png", Gate.NOT_AN_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Gate.NOT_AN_IMAGE),
        (b"%PDF-1.7 not a picture", Gate.NOT_AN_IMAGE),
        (png_header(50_000, 50_000), Gate.PIXEL_LIMIT),
        (png_header(50_000, 50_000)[:33], Gate.PIXEL_LIMIT),
        (png_header(1_001, 1_000), Gate.PIXEL_LIMIT),
        (b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\xff\x3f\x00\xff\x3f\x00", Gate.PIXEL_LIMIT),
        (encoded(drawn(), "JPEG")[:900], Gate.TRUNCATED),
        (encoded(drawn(width=256, height=256))[:3000], Gate.TRUNCATED),
        (encoded(drawn(), "GIF")[:1500], Gate.TRUNCATED),
        (encoded(drawn(), "BMP")[:300], Gate.TRUNCATED),
        (b"\x89PNG\r\n\x1a\n", Gate.DAMAGED),
        (b"\xff\xd8\xff\xe0", Gate.DAMAGED),
        (encoded(drawn())[:40] + b"\0" * 200, Gate.DAMAGED),
    ],
)
def test_what_is_no_picture_is_refused_with_a_stable_code(data: bytes, gate: Gate) -> None:
    assert refused(data) is gate


def test_a_bomb_is_refused_from_its_header_and_says_its_size() -> None:
    with pytest.raises(UnreadableError) as caught:
        read_upright_rgb(png_header(50_000, 50_000), LIMIT)
    assert caught.value.fact.value == 2.5e9
    assert caught.value.fact.threshold == LIMIT


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_accepted_format_is_read_as_rgb_of_its_size(kind: str) -> None:
    image, animated = read_upright_rgb(encoded(drawn(width=80, height=64), kind), LIMIT)
    assert (image.mode, image.size, animated) == ("RGB", (80, 64), False)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_png_mode_keeps_its_picture(mode: str) -> None:
    picture = drawn()
    image, _ = read_upright_rgb(encoded(_in_mode(picture, mode)), LIMIT)
    likeness = np.corrcoef(np.asarray(picture.convert("L")).ravel(), np.asarray(image.convert("L")).ravel())[0, 1]
    assert image.mode == "RGB"
    assert likeness > (0.5 if mode == "1" else 0.95)


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    return picture.convert(mode)


def test_cmyk_jpeg_keeps_its_colours() -> None:
    picture = drawn()
    image, _ = read_upright_rgb(encoded(picture.convert("CMYK"), "JPEG", quality=95), LIMIT)
    assert np.abs(np.asarray(picture, dtype=float) - np.asarray(image, dtype=float)).mean() < 6


def test_transparency_becomes_white_paper() -> None:
    glass = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image, _ = read_upright_rgb(encoded(glass), LIMIT)
    assert image.getpixel((5, 5)) == (255, 255, 255)


def test_a_transparent_palette_colour_becomes_white_paper() -> None:
    flat = Image.new("P", (64, 64), 0)
    flat.putpalette([10, 20, 30, 200, 100, 50])
    image, _ = read_upright_rgb(encoded(flat, transparency=0), LIMIT)
    assert image.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame_and_says_so(kind: str) -> None:
    first, second = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], duration=100, **options)
    image, animated = read_upright_rgb(data, LIMIT)
    assert animated
    assert image.getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int) -> None:
    turned = drawn(width=96, height=64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, _ = read_upright_rgb(encoded(turned, exif=exif), LIMIT)
    tagged = turned.copy()
    tagged.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(tagged)
    assert image.size == ((64, 96) if orientation > 4 else (96, 64))
    assert np.array_equal(np.asarray(image), np.asarray(expected))


@pillow_may_warn
def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    image, _ = read_upright_rgb(encoded(drawn(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff\xff"), LIMIT)
    assert image.size == (64, 64)


@pillow_may_warn
@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]))
def test_any_damage_is_a_picture_or_a_code_but_never_another_error(noise: bytes, at: int, kind: str) -> None:
    data = encoded(Image.new("RGB", (16, 16), "teal"), kind)
    data = data[:at] + noise + data[at + len(noise) :]
    assert _outcome(data) in ("RGB", *Gate)


def _outcome(data: bytes) -> str:
    """Mode of the picture, or the gate that refused it."""
    try:
        image, _ = read_upright_rgb(data, LIMIT)
    except UnreadableError as error:
        return error.fact.gate
    return image.mode
