"""`terroir train submit` turns the folder of a local run into a dataset, because calls carry no paths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from terroir.cli.session import Session
from terroir.cli.train import upload_folder
from terroir.common.errors import AlreadyExists, InvalidArgument

STYLE = Path(__file__).resolve().parents[3] / "examples" / "styles" / "jiangnan-ink"


class RecordingDatasets:
    def __init__(self, *, exists: bool = False) -> None:
        self.exists, self.created, self.imported = exists, {}, []

    def create(self, dataset_id, fields):
        if self.exists:
            raise AlreadyExists("it is there")
        self.created[dataset_id] = fields

    def import_pictures(self, name, pictures):
        self.imported = [name, len(pictures)]
        return iter(pictures)

    def freeze(self, name):
        return SimpleNamespace(name=f"{name}/versions/1")


def submit(text: str, datasets: RecordingDatasets) -> dict:
    this = Session(None, True, Console())
    return yaml.safe_load(upload_folder(this, SimpleNamespace(datasets=datasets), "adapters/ink", text, "ours"))


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


def test_a_file_that_is_no_yaml_is_left_for_the_service_to_name():
    this = Session(None, True, Console())
    client = SimpleNamespace(datasets=RecordingDatasets())
    assert upload_folder(this, client, "adapters/ink", "a: [", "ours") == "a: ["
