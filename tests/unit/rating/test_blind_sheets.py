"""Nothing of a sheet tells which picture is real: not its files, not its order, not what the service says of it."""

from __future__ import annotations

import io
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rating_kit import SUBJECT, drawing, generated, made, photo, real, sheets

from terroir.common.clock import FixedClock
from terroir.store.obstore_driver import MemoryStore
from terroir.training.rating.errors import PicturesLacking, PictureUnusable, SheetNotFound
from terroir.training.rating.forms import sheet_files
from terroir.training.rating.messages import sheet_message
from terroir.training.rating.model import Drawn, Kind
from terroir.training.rating.pictures import alike, opened, side_for
from terroir.training.rating.sheets import RealPicture, Sheets


def chunks_of(png: bytes) -> list[bytes]:
    """Types of a PNG file's chunks, in order."""
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.append(png[at + 4 : at + 8])
        at += 12 + length
    return found


def test_all_pictures_of_a_sheet_have_one_size_one_encoding_and_one_length() -> None:
    house = sheets()
    sheet = made(6, 6, house)
    files = [house.picture(item) for item in sheet.items]
    assert len({len(data) for data in files}) == 1, "a folder's listing tells lengths"
    assert {tuple(chunks_of(data)) for data in files} == {(b"IHDR", b"IDAT", b"paDd", b"IEND")}
    assert len({data[8:33] for data in files}) == 1, "the headers say the same of size, depth and filters"
    for data in files:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            assert (picture.size, picture.mode, picture.info) == ((sheet.side, sheet.side), "RGB", {})
            assert not picture.getexif()


def test_what_cameras_and_generators_write_into_files_is_gone() -> None:
    house = sheets()
    for item in made(4, 4, house).items:
        data = house.picture(item)
        for secret in (b"Camera", b"secret", b"parameters", b"terroir", b"lora", b"Exif", b"ICC"):
            assert secret not in data


def test_the_pixels_are_the_pictures_own() -> None:
    """Made alike, not made up: a drawing that has the sheet's side already keeps every pixel."""
    (data,) = alike([opened(drawing(3), "d")], 64)
    with Image.open(io.BytesIO(data)) as shown, Image.open(io.BytesIO(drawing(3))) as was:
        assert np.array_equal(np.asarray(shown), np.asarray(was.convert("RGB")))


def test_no_picture_is_enlarged_and_a_photo_stands_upright() -> None:
    pictures = [opened(photo(1, 90, 70), "photo"), opened(drawing(1, 64), "drawing")]
    assert pictures[0].size == (70, 90), "its orientation was applied"
    assert side_for(pictures) == 64
    assert side_for([opened(photo(1, 900, 700), "photo"), opened(drawing(1, 640), "d")]) == 512


def test_what_is_transparent_lies_on_white() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(file, "PNG")
    assert opened(file.getvalue(), "p").getpixel((0, 0)) == (255, 255, 255)
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF", transparency=0)
    assert opened(file.getvalue(), "p").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", photo(1)[:200], b"GIF89a" + bytes(20)], ids=["empty", "text", "cut", "nothing"]
)
def test_a_file_that_is_no_picture_is_named(data: bytes) -> None:
    with pytest.raises(PictureUnusable, match=r"7\.jpg"):
        opened(data, "7.jpg")


def test_a_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    import zlib

    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(PictureUnusable):
        opened(b"\x89PNG\r\n\x1a\n" + chunk, "bomb.png")


def test_the_files_of_a_sheet_name_no_kind_no_source_no_prompt_and_no_digest() -> None:
    house = sheets()
    sheet = made(5, 5, house)
    pictures = {item.label: house.picture(item) for item in sheet.items}
    files = dict(sheet_files(sheet.name, pictures))
    assert set(files) == {"sheet.html", "sheet.csv", *(f"pictures/{label}.png" for label in sheet.labels)}
    for item in sheet.items:
        for secret in (item.blob, item.source, item.source.partition("#")[0]):
            assert not any(secret.encode() in data for data in files.values())
    page = files["sheet.html"].decode()
    for label in sheet.labels:
        card = page.partition(f'id="card-{label}"')[2].partition("</fieldset>")[0]
        without_picture = card.partition('src="')[0] + card.partition('" alt="')[2]
        others = page.partition(f'id="card-{sheet.labels[0]}"')[2].partition("</fieldset>")[0]
        expected = others.partition('src="')[0] + others.partition('" alt="')[2]
        assert without_picture.replace(label, "pXX") == expected.replace(sheet.labels[0], "pXX")


def test_a_page_needs_nothing_from_elsewhere() -> None:
    house = sheets()
    sheet = made(2, 2, house)
    page = dict(sheet_files(sheet.name, {item.label: house.picture(item) for item in sheet.items}))["sheet.html"]
    assert b"http:" not in page and b"https:" not in page and b'src="//' not in page
    assert b"default-src 'none'" in page


def test_what_the_service_says_of_a_sheet_holds_no_key() -> None:
    sheet = made(3, 3)
    told = str(sheet_message(sheet))
    assert not any(item.blob in told or item.source in told for item in sheet.items)
    assert not {field.name for field in sheet_message(sheet).DESCRIPTOR.fields} & {"items", "key", "kinds"}


def test_every_place_is_as_often_a_real_pictures_as_a_generated_ones() -> None:
    """Over 400 sheets of 2 and 2; a place would be off by 5 standard deviations."""
    places = Counter[int]()
    small = [alike([opened(data, "p")], 8)[0] for data in (photo(1), photo(2), drawing(1), drawing(2))]
    for number in range(400):
        house = Sheets(MemoryStore(), FixedClock())
        reals = [RealPicture("r", small[0], "a" * 64), RealPicture("r", small[1], "b" * 64)]
        drawn = [Drawn(small[2], "p", 1), Drawn(small[3], "p", 2)]
        sheet = house.make(f"request {number}", SUBJECT, reals, drawn, "ana")
        places.update(at for at, item in enumerate(sheet.items) if item.kind is Kind.REAL)
    assert all(150 < places[at] < 250 for at in range(4)), places


def test_a_request_repeated_gives_the_same_sheet_in_the_same_order() -> None:
    house = sheets()
    first = made(3, 3, house)
    again = house.make("request", SUBJECT, real(3), generated(3), "local:ana")
    assert again == first
    assert house.make("other", SUBJECT, real(3), generated(3), "local:ana").id != first.id


@pytest.mark.parametrize(("reals", "drawings"), [(0, 3), (3, 0), (101, 1), (1, 101)])
def test_a_sheet_has_one_to_a_hundred_pictures_of_each_kind(reals: int, drawings: int) -> None:
    with pytest.raises(PicturesLacking):
        made(reals, drawings)


def test_an_unknown_sheet_is_told(tmp_path: Path) -> None:
    with pytest.raises(SheetNotFound, match="terroir train rate list"):
        sheets().get("sheet-0")
