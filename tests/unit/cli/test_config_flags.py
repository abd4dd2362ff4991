"""Every key of a run is a flag of `terroir train`, `submit` and `validate`, and overrules the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from terroir.cli import config_flags
from terroir.cli.main import app
from terroir.common.errors import InvalidArgument
from terroir.training.config import TrainConfig
from terroir.training.config.flags import absolute_paths, flags
from terroir.training.config.parser import config_from_mapping
from terroir.training.config.synonyms import SYNONYMS
from terroir.training.errors import ConfigInvalid

KEYS = [key for key in TrainConfig.model_fields if key != "adapter"]
GIVEN = {
    "profile": ["--profile", "gpu-24gb", "--profile", "clean-set"],
    "target_modules": ["--target-modules", "to_q", "--target-modules", "to_k"],
    "block_lr_weights": ["--block-lr-weights", "mid_block=0", "--block-lr-weights", "down_blocks.0=0.5"],
    "use_dora": ["--use-dora"], "lora_rank": ["--lora-rank", "8"], "learning_rate": ["--learning-rate", "1e-3"],
    "ema_decay": ["--ema-decay", "null"], "mixed_precision": ["--mixed-precision", "no"],
    "trigger_word": ["--trigger-word", "007"],
}  # fmt: skip
MEANT = {
    "profile": ("gpu-24gb", "clean-set"), "target_modules": ("to_q", "to_k"),
    "block_lr_weights": {"mid_block": 0.0, "down_blocks.0": 0.5},
    "use_dora": True, "lora_rank": 8, "learning_rate": 1e-3, "ema_decay": None, "mixed_precision": "no",
    "trigger_word": "007",
}  # fmt: skip


@pytest.fixture
def style(tmp_path: Path) -> Path:
    path = tmp_path / "style.yaml"
    path.write_text("train_data_dir: pictures\nlora_rank: 2\nema_decay: 0.99\nmax_train_steps: 9\n")
    return path


def validated(style: Path, *flags: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["--json", "train", "validate", str(style), "--local", *flags])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return dict(yaml.safe_load(json.loads(done.stdout)["config_yaml"]))


@pytest.mark.parametrize("command", ["", "submit", "validate"])
def test_every_key_is_a_flag_with_its_description_under_its_section(command: str) -> None:
    train = get_command(app).commands["train"]
    parameters = (train.commands[command] if command else train).get_params(context_of(train))
    by_flag = {option: parameter for parameter in parameters for option in parameter.opts}
    for flag in flags():
        if command != "submit" or flag.spelling != "adapter":
            shown = by_flag[flag.name]
            assert (shown.help or "", shown.rich_help_panel) == (flag.help, flag.section)
            assert shown.hidden == (flag.spelling in SYNONYMS)
    assert {flag.spelling for flag in flags()} == {*TrainConfig.model_fields, *SYNONYMS}


def context_of(command):
    return command.make_context("train", [])


@pytest.mark.parametrize("key", GIVEN)
def test_a_flag_overrules_the_file_and_its_text_is_read_as_the_key_needs(style: Path, key: str) -> None:
    told = validated(style, *GIVEN[key])
    assert config_from_mapping(told).config.model_dump()[key] == MEANT[key]


def test_a_switch_can_be_turned_off_again(style: Path) -> None:
    style.write_text(style.read_text() + "use_dora: true\n")
    assert validated(style)["use_dora"] is True
    assert validated(style, "--no-use-dora")["use_dora"] is False


def test_a_mapping_of_the_file_can_be_emptied(style: Path) -> None:
    style.write_text(style.read_text() + "block_lr_weights: {mid_block: 0}\n")
    assert validated(style, "--block-lr-weights", "null")["block_lr_weights"] == {}


def test_entries_of_a_list_are_texts_as_they_are() -> None:
    prompts = config_flags._flags()["sample_prompts"]
    assert prompts.value(["a hill, in rain", "1"]) == ["a hill, in rain", "1"]
    assert prompts.value(["null"]) == []


def test_epochs_as_a_flag_take_the_place_of_the_file_s_steps(style: Path) -> None:
    told = validated(style, "--epochs", "3")
    assert (told["epochs"], told["max_train_steps"]) == (3.0, None)


@pytest.mark.parametrize("flag", ["--network-dim", "--network_dim", "--lora_rank"])
def test_spellings_of_other_trainers_are_understood(style: Path, flag: str) -> None:
    assert validated(style, f"{flag}=4")["lora_rank"] == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora-rnk", "4"], r"no such option --lora-rnk; the nearest is --lora-rank"),
        (["--lora-rank", "900"], r"lora_rank 900 is not allowed: 1 to 256"),
        (["--lora-rank", "many"], r"lora_rank 'many': write a whole number"),
        (["--optimizer", "adamv"], r"the nearest is 'adam"),
        (["--block-lr-weights", "mid_block"], r"write NAME=NUMBER"),
        (["--lora-rank", "4", "--network-dim", "5"], r"means 'lora_rank', which is set too"),
        (["--num-cycles", "4"], r"the nearest is --"),
    ],
)
def test_what_is_wrong_with_a_flag_is_said_as_for_the_file(style: Path, flags: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as refused:
        validated(style, *flags)
    assert refused.value.reason in ("CONFIG_KEY_UNKNOWN", "CONFIG_VALUE", "CONFIG_KEY_TWICE")


def test_flags_alone_are_a_configuration(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "--train-data-dir", str(tmp_path / "nowhere"), "--lora-rank", "4"])
    assert isinstance(done.exception, InvalidArgument) and done.exception.reason == "FOLDER_MISSING"
    nothing = CliRunner().invoke(app, ["train"])
    assert isinstance(nothing.exception, InvalidArgument) and nothing.exception.reason == "CONFIG_MISSING"


@pytest.mark.parametrize("options", [["--lora-rank", "4"], ["--config", "a.yaml"], ["--start-over"]], ids=str)
def test_options_of_a_local_run_before_a_command_are_refused_rather_than_lost(options: list[str]) -> None:
    done = CliRunner().invoke(app, ["train", *options, "submit", "b.yaml", "--adapter", "ink"])
    assert isinstance(done.exception, InvalidArgument) and "behind it" in str(done.exception)


def test_paths_of_flags_are_those_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "sd15").mkdir()
    keys = {"train_data_dir": "p", "output_dir": "/out", "base_model": "sd15", "pretrained_lora": "a@b", "seed": 3}
    assert absolute_paths(keys, tmp_path) == {
        **keys, "train_data_dir": str(tmp_path / "p"), "base_model": str(tmp_path / "sd15"),
    }  # fmt: skip


def test_the_model_is_loaded_only_where_flags_are_read() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from terroir.cli.main import app; "
        "CliRunner().invoke(app, ['--help']); CliRunner().invoke(app, ['train', 'list', '--help']); "
        "print('terroir.training.config' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "False"


def test_a_mapping_without_a_value_names_its_flag() -> None:
    flag = config_flags._flags()["block_lr_weights"]
    with pytest.raises(ConfigInvalid, match="--block-lr-weights 'mid_block'"):
        flag.value(["mid_block"])
