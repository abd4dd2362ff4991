"""Rows of the keys that say what is trained on what, and where the result goes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from data_kit import config
from key_table import Ground, part, shown_by, shows
from training_kit import png

from terroir.lora.base_folder import read_base_folder
from terroir.lora.formats import parse
from terroir.training.config.parser import parse_config
from terroir.training.engine.data.captions import CaptionTable
from terroir.training.engine.ports import Picture
from terroir.training.local.data import read_pictures
from terroir.training.local.run import run_locally

shown_by("dataset", "unit/training/test_submissions.py::test_a_job_keeps_its_whole_configuration_with_exact_versions")


def run_here(at: Ground, **keys: Any) -> tuple[Path, ...]:
    """A run of one step over a folder `pictures`, with the small base."""
    folder = at.folder / "pictures"
    if not folder.exists():
        folder.mkdir()
        (folder / "a.png").write_bytes(png(1))
        (folder / "a.txt").write_text("a red house")
    (at.folder / "style.yaml").write_text(f"train_data_dir: pictures\nbase_model: {at.base}\nresolution: 32\n")
    over = {"max_train_steps": 1, "lora_rank": 2, **keys}
    return run_locally(at.folder / "style.yaml", over=over, start_over=True, threads=1).files


@shows("train_data_dir")
def the_folder_whose_pictures_are_read(at: Ground) -> None:
    for name in ("hills", "lakes"):
        (at.folder / name).mkdir()
        (at.folder / name / f"{name}.png").write_bytes(png(1))
        read = read_pictures(config(train_data_dir=name), at.folder)
        assert [picture.name for picture in read.data] == [f"{name}.png"]


@shows("metadata_path")
def the_table_whose_captions_replace_the_folder_s(at: Ground) -> None:
    (at.folder / "p").mkdir()
    (at.folder / "p" / "a.png").write_bytes(png(1))
    (at.folder / "p" / "a.txt").write_text("beside")
    (at.folder / "c.csv").write_text("file_name,text\na.png,of the table\n")
    keys = {"train_data_dir": "p"}
    assert read_pictures(config(**keys), at.folder).data[0].caption == "beside"
    assert read_pictures(config(**keys, metadata_path="c.csv"), at.folder).data[0].caption == "of the table"


@shows("output_dir")
def the_folder_of_the_files(at: Ground) -> None:
    files = run_here(at, output_dir="somewhere/else")
    assert {file.parent for file in files} == {at.folder / "somewhere" / "else"}


@shows("adapter")
def the_name_of_the_files(at: Ground) -> None:
    assert [file.name for file in run_here(at, adapter="ink")] == ["ink.safetensors", "ink.diffusers.safetensors"]


@shows("base_model")
def the_base_that_the_file_is_bound_to(at: Ground) -> None:
    other = at.folder / "other"
    shutil.copytree(at.base, other)
    unet = other / "unet" / "diffusion_pytorch_model.safetensors"
    whole = bytearray(unet.read_bytes())
    whole[-2] ^= 1  # the last weight, by a little
    unet.write_bytes(whole)
    files = [run_here(at, base_model=str(base))[0].read_bytes() for base in (at.base, other)]
    digests = [read_base_folder(base).digest for base in (at.base, other)]
    assert digests[0] != digests[1] and [digest.encode() in file for digest, file in zip(digests, files, strict=True)]
    assert digests[1].encode() in files[1] and digests[1].encode() not in files[0]


@shows("pretrained_lora")
def the_adapter_that_is_gone_on_from(at: Ground) -> None:
    first = run_here(at, learning_rate=1e-2, output_dir="first")[0]
    on = run_here(at, learning_rate=1e-9, pretrained_lora=str(first), output_dir="on")[0]
    fresh = run_here(at, learning_rate=1e-9, output_dir="fresh")[0]
    layers = read_base_folder(at.base).layers
    before, after, never = (part(parse(file.read_bytes(), layers).adapter, "up") for file in (first, on, fresh))
    assert np.allclose(before, after, atol=1e-7) and not np.allclose(before, never, atol=1e-4)


@shows("trigger_word")
def the_word_before_every_caption(_: Ground) -> None:
    given = [Picture("a.png", png(1), "a house")]
    keys = config(trigger_word="ink style")
    assert "ink style, a house" in CaptionTable.of(keys, keys.trigger_word, given, []).texts


@shows("profile")
def the_values_that_a_run_starts_from(_: Ground) -> None:
    assert parse_config("profile: cpu-smoke").config.max_train_steps == 20
    assert parse_config("").config.max_train_steps is None
