"""`terroir train submit` turns the folder of a local run into a dataset, because calls carry no paths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from terroir.cli.session import Session
from terroir.cli.train_folder import service_config
from terroir.common.errors import AlreadyExists, InvalidArgument
from terroir.training.errors import ConfigInvalid

STYLE = Path(__file__).resolve().parents[3] / "examples" / "styles" / "jiangnan-ink"


class RecordingDatasets:
    def __init__(self, *, exists: bool = False) -> None:
        self.exists, self.created, self.imported, self.captions = exists, {}, [], []

    def create(self, dataset_id, fields):
        if self.exists:
            raise AlreadyExists("it is there")
        self.created[dataset_id] = fields

    def import_pictures(self, name, pictures):
        self.imported += [name, len(pictures)]
        self.captions += [picture.caption for picture in pictures]
        return iter(pictures)

    def freeze(self, name):
        return SimpleNamespace(name=f"{name}/versions/1")


def submit(text, datasets, home=Path("/"), given=(), adapter="adapters/ink") -> dict:
    client = SimpleNamespace(datasets=datasets)
    this = Session(None, True, Console())
    return yaml.safe_load(service_config(this, client, home, text, dict(given), adapter, "ours").text)


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_becomes_a_frozen_dataset(exists):
    datasets = RecordingDatasets(exists=exists)
    config = submit(f"train_data_dir: {STYLE}\noutput_dir: out\ntrigger_word: ink style\nlora_rank: 4\n", datasets)
    assert config == {"dataset": "datasets/ink/versions/1", "trigger_word": "ink style", "lora_rank": 4}
    assert datasets.imported == ["datasets/ink", 40]
    assert exists or (datasets.created["ink"].rights_statement, datasets.created["ink"].trigger_word) == (
        "ours",
        "ink style",
    )


def test_a_file_that_names_a_dataset_is_sent_as_it_is():
    datasets = RecordingDatasets()
    assert submit("dataset: datasets/ink\n", datasets) == {"dataset": "datasets/ink"}
    assert datasets.imported == []


def test_an_empty_folder_sends_nothing(tmp_path):
    datasets = RecordingDatasets()
    with pytest.raises(InvalidArgument) as caught:
        submit(f"train_data_dir: {tmp_path}\n", datasets)
    assert caught.value.reason == "FOLDER_EMPTY"
    assert not datasets.created


def test_a_file_that_is_no_yaml_is_named_before_anything_is_sent():
    datasets = RecordingDatasets()
    with pytest.raises(ConfigInvalid) as caught:
        submit("a: [", datasets)
    assert caught.value.reason == "CONFIG_NOT_YAML" and not datasets.created


def folder(home: Path, name: str, *stems: str) -> None:
    (home / name).mkdir()
    for stem in stems:
        (home / name / f"{stem}.png").write_bytes(b"a picture")
        (home / name / f"{stem}.txt").write_text(f"a {stem}")


def test_folders_are_relative_to_the_file_as_in_a_local_run_and_those_of_flags_to_the_caller(tmp_path, monkeypatch):
    folder(tmp_path, "pictures", "hill")
    (tmp_path / "elsewhere").mkdir()
    folder(tmp_path / "elsewhere", "pictures", "lake", "boat")
    monkeypatch.chdir(tmp_path / "elsewhere")
    by_file, by_flag = RecordingDatasets(), RecordingDatasets()
    submit("train_data_dir: pictures\n", by_file, tmp_path)
    submit("lora_rank: 4\n", by_flag, tmp_path, {"train_data_dir": "pictures"})
    assert (by_file.captions, by_flag.captions) == (["a hill"], ["a boat", "a lake"])


def test_captions_of_a_table_and_ordinary_pictures_go_along(tmp_path):
    folder(tmp_path, "pictures", "hill")
    folder(tmp_path, "plain", "house", "tree")
    (tmp_path / "c.csv").write_text("file_name,text\nhill.png,a green hill\n")
    datasets = RecordingDatasets()
    config = submit("train_data_dir: pictures\nmetadata_path: c.csv\nreg_data_dir: plain\n", datasets, tmp_path)
    assert config == {"dataset": "datasets/ink/versions/1", "reg_dataset": "datasets/ink-ordinary/versions/1"}
    assert datasets.imported == ["datasets/ink", 1, "datasets/ink-ordinary", 2]
    assert datasets.captions == ["a green hill", "a house", "a tree"]
    assert {fields.rights_statement for fields in datasets.created.values()} == {"ours"}


def test_words_that_yaml_1_1_takes_for_booleans_stay_words(tmp_path):
    folder(tmp_path, "pictures", "hill")
    config = submit("train_data_dir: pictures\nmixed_precision: no\n", RecordingDatasets(), tmp_path)
    assert config["mixed_precision"] == "no"


def test_flags_overrule_the_file_under_any_spelling():
    config = submit("dataset: datasets/ink\nnetwork_dim: 4\n", RecordingDatasets(), given={"lora_rank": 8})
    assert config == {"dataset": "datasets/ink", "lora_rank": 8}


def test_mask_files_are_refused_as_a_dataset_does_not_carry_them(tmp_path):
    folder(tmp_path, "pictures", "hill")
    (tmp_path / "pictures" / "hill.mask.png").write_bytes(b"a mask")
    with pytest.raises(InvalidArgument, match="alpha") as caught:
        submit("train_data_dir: pictures\nmasked_loss: true\n", RecordingDatasets(), tmp_path)
    assert caught.value.reason == "MASKS_OF_FILES"


def test_the_adapter_of_the_file_is_enough_and_none_is_an_error():
    assert submit("dataset: datasets/ink\nadapter: ink\n", RecordingDatasets(), adapter="")["adapter"] == "ink"
    with pytest.raises(InvalidArgument) as caught:
        submit("dataset: datasets/ink\n", RecordingDatasets(), adapter="")
    assert caught.value.reason == "ADAPTER_MISSING"
