"""What a picture file may be, and what is said of one that cannot be used."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_kit import array, as_file, config, gradient, noise_image
from PIL import Image
from training_kit import Bench, MemorySinks

from terroir.training.engine.data.augmentation import Recipe
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.examples import ExampleMaker
from terroir.training.engine.data.pictures import Pixels, check_headers, decode, pixels_digest
from terroir.training.engine.ports import Picture, TrainRun
from terroir.training.engine.train import train
from terroir.training.errors import NothingToTrain, PictureUnreadable


def of(data: bytes) -> Picture:
    return Picture("bad.png", data, "a house")


def pixels(data: bytes, resolution: int = 16) -> Pixels:
    settings = config(resolution=resolution)
    return ExampleMaker(settings, 4).make(of(data), Recipe.of(settings))[1][0].pixels


def bare_png(width: int, height: int) -> bytes:
    """A header that promises more than the file holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_pictures_are_turned_upright_covered_and_cut_from_the_centre() -> None:
    halves = np.zeros((20, 40, 3), np.uint8)
    halves[:, :20] = 255
    image = Image.fromarray(halves)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate a quarter clockwise
    turned = pixels(as_file(image, exif=exif))
    assert turned.shape == (16, 16, 3) and turned[0].min() > 250 and turned[-1].max() < 5
    assert decode(of(as_file(image, exif=exif))).size == Size(20, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    data = as_file(gradient((32, 32)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert pixels(data).shape == (16, 16, 3)


def test_transparent_pictures_are_put_on_white() -> None:
    assert pixels(as_file(Image.new("RGBA", (20, 20), (255, 0, 0, 0)))).min() == 255


def palette(image: Image.Image) -> Image.Image:
    return image.convert("P", palette=Image.Palette.ADAPTIVE)


def clear_palette(image: Image.Image) -> Image.Image:
    indexed = Image.new("P", image.size, 0)
    indexed.putpalette([255, 0, 0, 0, 0, 255])
    indexed.paste(1, (0, 0, image.width // 2, image.height))
    indexed.info["transparency"] = 0
    return indexed


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda image: image, "PNG"), (palette, "PNG"), (palette, "GIF"), (lambda image: image.convert("CMYK"), "JPEG"),
        (lambda image: image.convert("CMYK"), "TIFF"), (lambda image: image, "WEBP"), (lambda image: image, "BMP"),
        (lambda image: image.convert("LAB"), "TIFF"),
    ],
)  # fmt: skip
def test_every_kind_of_colour_becomes_rgb(change: Callable[[Image.Image], Image.Image], kind: str) -> None:
    image = gradient((64, 64))
    made = pixels(as_file(change(image), kind), 64).astype(int)
    assert np.abs(made[..., :2] - array(image)[..., :2].astype(int)).mean() < 25
    assert (np.diff(made[..., 0].mean(axis=0))[::8] >= -2).all()  # red still grows from left to right


def test_a_palette_with_a_transparent_entry_is_put_on_white() -> None:
    made = pixels(as_file(clear_palette(gradient((32, 32))), transparency=0), 32)
    assert (made[:, -8:] == 255).all() and (made[:, :8] == [0, 0, 255]).all()


def test_greys_of_16_bits_keep_their_shades() -> None:
    """Pillow's own conversion clips everything above 255 to white."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None, :].repeat(64, axis=0)
    for kind in ("PNG", "TIFF"):
        made = pixels(as_file(Image.fromarray(ramp), kind), 64)
        assert np.abs(made[0, :, 0].astype(int) - np.linspace(0, 255, 64)).max() <= 2, kind


def test_bilevel_and_grey_pictures_are_seen_as_they_are() -> None:
    assert set(np.unique(pixels(as_file(Image.new("1", (32, 32), 1)), 32))) == {255}
    assert set(np.unique(pixels(as_file(Image.new("L", (32, 32), 77)), 32))) == {77}
    grey = pixels(as_file(Image.new("LA", (32, 32), (77, 0))), 32)
    assert set(np.unique(grey)) == {255}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    data = as_file(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    made = pixels(data, 32)
    assert made[..., 0].min() > 190 and made[..., 1:].max() < 10


def test_a_picture_smaller_than_the_resolution_is_enlarged() -> None:
    assert pixels(as_file(noise_image(0, (20, 30))), 64).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (as_file(noise_image(1))[:80], "PICTURE_UNREADABLE", "cannot be decoded"),
        (as_file(noise_image(1), "JPEG")[:900], "PICTURE_UNREADABLE", "cannot be decoded"),
        (b"", "PICTURE_UNREADABLE", "cannot be decoded"),
        (b"GIF89a" + b"\0" * 40, "PICTURE_UNREADABLE", "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "PICTURE_UNREADABLE", "cannot be decoded"),
        (as_file(Image.new("RGB", (1, 1))), "PICTURE_TOO_SMALL", "1 × 1"),
        (as_file(Image.new("RGB", (4000, 15))), "PICTURE_TOO_SMALL", "each side needs 16"),
        (bare_png(9000, 9000), "PICTURE_TOO_LARGE", "9000 × 9000"),
        (bare_png(40_000, 40_000), "PICTURE_TOO_LARGE", "decompression bomb"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(data: bytes, reason: str, words: str) -> None:
    with pytest.raises(PictureUnreadable, match=r"bad\.png") as error:
        decode(of(data))
    assert error.value.reason == reason and words in str(error.value)


def test_a_bomb_is_found_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(PictureUnreadable):
        check_headers([of(bare_png(9000, 9000))])


def test_a_run_finds_a_bad_file_before_it_looks_for_its_base(small: Bench, tmp_path: Path) -> None:
    run = TrainRun(config(), tmp_path, {})
    with pytest.raises(PictureUnreadable, match=r"bad\.png"):
        train(run, [of(as_file(noise_image(2))), of(b"no picture")], MemorySinks(), small.cache)


def test_no_pictures_are_an_error(small: Bench) -> None:
    with pytest.raises(NothingToTrain, match="has no pictures") as error:
        small.run(data=[])
    assert error.value.reason == "DATASET_EMPTY"


def test_a_digest_is_of_pixels_and_shape() -> None:
    one = np.zeros((4, 6, 3), np.uint8)
    assert pixels_digest(one) == pixels_digest(one.copy(order="F"))
    assert pixels_digest(one) != pixels_digest(one.reshape(6, 4, 3))
    other = one.copy()
    other[3, 5, 2] = 1
    assert pixels_digest(one) != pixels_digest(other)


def test_the_same_pixels_in_another_file_are_the_same_picture() -> None:
    image = noise_image(3)
    slow = io.BytesIO()
    image.save(slow, "PNG", compress_level=1)
    digests = {decode(of(data)).digest() for data in (as_file(image), slow.getvalue(), as_file(image, "BMP"))}
    assert len(digests) == 1
