"""Folders of a run without a server: where captions, masks and regularisation pictures come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_kit import as_file, config
from PIL import Image
from training_kit import png

from terroir.common.errors import InvalidArgument
from terroir.training.local.data import read_pictures
from terroir.training.local.run import run_locally


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures: one with a sidecar, one in the folder's own table."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes(png(1))
    (tmp_path / "in" / "a.txt").write_text("from the sidecar")
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\nb.png,from the table\n")
    return tmp_path


def captions(start: Path, **keys: object) -> list[str]:
    return [picture.caption for picture in read_pictures(config(train_data_dir="in", **keys), start).data]


def refused(start: Path, **keys: object) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as error:
        read_pictures(config(**{"train_data_dir": "in", **keys}), start)
    return error.value


def test_metadata_path_replaces_sidecars_and_the_folder_s_own_table(folder: Path) -> None:
    assert captions(folder) == ["from the sidecar", "from the table"]
    (folder / "other.csv").write_text("file_name,text\na.png,from elsewhere\n")
    assert captions(folder, metadata_path="other.csv") == ["from elsewhere", ""]
    assert captions(folder, metadata_path=str(folder / "other.csv")) == ["from elsewhere", ""]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "CAPTIONS_MISSING"),
        ("name,caption\na.png,x\n", "BAD_METADATA_CSV"),
        ("file_name,text\nx.png,x\n", "CAPTIONS_OF_OTHERS"),
        ("file_name,text\n", "CAPTIONS_OF_OTHERS"),
        (b"\xff\xfe\x00", "CAPTIONS_UNREADABLE"),
    ],
)
def test_a_wrong_metadata_path_is_named(folder: Path, content: str | bytes | None, reason: str) -> None:
    if content is not None:
        (folder / "other.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    error = refused(folder, metadata_path="other.csv")
    assert error.reason == reason and "other.csv" in str(error)


@pytest.mark.parametrize(("key", "usual"), [("train_data_dir", {}), ("reg_data_dir", {"train_data_dir": "in"})])
def test_a_wrong_folder_is_named_with_its_key(folder: Path, key: str, usual: dict[str, str]) -> None:
    missing = refused(folder, **usual, **{key: "nowhere"})
    assert (missing.reason, missing.field) == ("FOLDER_MISSING", key) and "nowhere" in str(missing)
    (folder / "empty").mkdir()
    empty = refused(folder, **usual, **{key: "empty"})
    assert (empty.reason, empty.field) == ("FOLDER_EMPTY", key) and key in str(empty)


def test_regularisation_pictures_have_captions_of_their_own(folder: Path) -> None:
    (folder / "reg").mkdir()
    (folder / "reg" / "c.png").write_bytes(png(2))
    (folder / "reg" / "c.txt").write_text("a street")
    (folder / "other.csv").write_text("file_name,text\na.png,x\nb.png,y\n")
    keys = config(train_data_dir="in", reg_data_dir="reg", metadata_path="other.csv")
    read = read_pictures(keys, folder)
    assert [picture.caption for picture in read.regularisation] == ["a street"]
    assert [picture.name for picture in read.data] == ["a.png", "b.png"]
    assert read_pictures(config(train_data_dir="in"), folder).regularisation == []


def test_a_mask_beside_a_picture_is_its_mask_and_no_picture(folder: Path) -> None:
    mask = as_file(Image.new("L", (40, 40), 255))
    (folder / "in" / "a.mask.png").write_bytes(mask)
    masked = read_pictures(config(train_data_dir="in", masked_loss=True), folder).data
    assert [(picture.name, picture.mask) for picture in masked] == [("a.png", mask), ("b.png", None)]
    plain = read_pictures(config(train_data_dir="in"), folder).data
    assert [(picture.name, picture.mask) for picture in plain] == [("a.png", None), ("b.png", None)]


def test_a_mask_of_no_picture_is_an_error(folder: Path) -> None:
    (folder / "in" / "typo.mask.png").write_bytes(as_file(Image.new("L", (40, 40), 255)))
    error = refused(folder, masked_loss=True)
    assert error.reason == "MASK_OF_NOTHING" and "typo.mask.png" in str(error) and "a.mask.png" in str(error)
    assert len(read_pictures(config(train_data_dir="in"), folder).data) == 2


def test_a_local_run_uses_masks_tables_and_regularisation_pictures(folder: Path, sd_dir: Path) -> None:
    (folder / "reg").mkdir()
    (folder / "reg" / "c.png").write_bytes(png(2))
    (folder / "reg" / "c.txt").write_text("a street")
    (folder / "in" / "a.mask.png").write_bytes(as_file(Image.new("L", (40, 40), 255)))
    (folder / "other.csv").write_text("file_name,text\na.png,x\nb.png,y\n")
    run = folder / "run.yaml"
    run.write_text(
        "train_data_dir: in\nmetadata_path: other.csv\nreg_data_dir: reg\nreg_share: 0.5\nmasked_loss: true\n"
        "resolution: 32\nlora_rank: 2\nmax_train_steps: 2\n"
    )
    run_locally(run, base_sources={"terroir-tiny": sd_dir}, threads=1)
    assert (
        "3 pictures (3 of 32 × 32, 1 of them for prior preservation)" in (folder / "output" / "train.log").read_text()
    )
