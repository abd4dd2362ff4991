"""A folder of pictures is read with its captions, and everything wrong with it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from terroir.client import scan_folder
from terroir.common.errors import InvalidArgument


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "c.webp"):
        (tmp_path / name).write_bytes(b"picture")
    return tmp_path


def captions(folder: Path) -> dict[str, str]:
    return {picture.path.name: picture.caption for picture in scan_folder(folder)}


def refusal(folder: Path) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refused:
        scan_folder(folder)
    return refused.value


def test_pictures_come_in_order_of_their_names(folder):
    assert list(captions(folder)) == ["a.png", "b.JPG", "c.webp"]


def test_captions_come_from_a_file_beside_the_picture_before_those_of_a_table(folder):
    (folder / "a.txt").write_text("  a red teapot\n", encoding="utf-8")
    (folder / "metadata.csv").write_text('file_name,text\na.png,from the table\nb.JPG,"a fox, asleep"\nz.png,gone\n')
    assert captions(folder) == {"a.png": "a red teapot", "b.JPG": "a fox, asleep", "c.webp": ""}


def test_captions_written_by_a_spreadsheet_are_read(folder):
    """Excel puts a byte order mark before UTF-8 and ends lines with both characters."""
    (folder / "metadata.csv").write_bytes("\ufefffile_name,text\r\na.png,西湖\r\n".encode())
    assert captions(folder)["a.png"] == "西湖"


def test_what_is_no_picture_is_left_out(folder):
    (folder / "notes.md").write_text("x")
    (folder / "folder.png").mkdir()
    (folder / "deeper").mkdir()
    (folder / "deeper" / "d.png").write_bytes(b"picture")
    assert list(captions(folder)) == ["a.png", "b.JPG", "c.webp"]


def test_a_missing_folder_is_named(tmp_path):
    refused = refusal(tmp_path / "none")
    assert (refused.reason, str(tmp_path / "none") in str(refused)) == ("FOLDER_MISSING", True)


def test_a_file_is_no_folder(folder):
    assert refusal(folder / "a.png").reason == "FOLDER_MISSING"


def test_an_empty_folder_says_what_to_put_into_it(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    refused = refusal(tmp_path)
    assert refused.reason == "FOLDER_EMPTY"
    assert ".png" in str(refused)


@pytest.mark.parametrize("table", ["", "file,caption\na.png,x\n", "file_name\na.png\n"])
def test_a_table_without_its_columns_is_refused(folder, table):
    (folder / "metadata.csv").write_text(table)
    refused = refusal(folder)
    assert refused.reason == "BAD_METADATA_CSV"
    assert "file_name and text" in str(refused)


def test_a_row_without_a_text_has_no_caption(folder):
    (folder / "metadata.csv").write_text("file_name,text\na.png\n")
    assert captions(folder)["a.png"] == ""


@pytest.mark.parametrize("name", ["a.txt", "metadata.csv"])
def test_captions_that_are_not_utf_8_are_named(folder, name):
    (folder / name).write_bytes("file_name,text\na.png,茶\n".encode("gb18030"))
    refused = refusal(folder)
    assert (refused.reason, name in str(refused)) == ("CAPTIONS_UNREADABLE", True)
