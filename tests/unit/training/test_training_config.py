from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.training.config import SYNONYMS, TrainConfig
from terroir.training.config_docs import render
from terroir.training.config_parser import config_from_mapping, dump_config, parse_config
from terroir.training.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("text", "reason", "field", "words"),
    [
        ("lora_rnk: 4", "CONFIG_KEY_UNKNOWN", "lora_rnk", "'lora_rank'"),
        ("zzz: 4", "CONFIG_KEY_UNKNOWN", "zzz", "the nearest is"),
        ("lora_rank: 0", "CONFIG_VALUE", "lora_rank", "greater than or equal to 1"),
        ("lora_rank: 512", "CONFIG_VALUE", "lora_rank", "256"),
        ("learning_rate: .nan", "CONFIG_VALUE", "learning_rate", "finite"),
        ("learning_rate: fast", "CONFIG_VALUE", "learning_rate", "number"),
        ("resolution: 65", "CONFIG_VALUE", "resolution", "multiple of 8"),
        ("lr_scheduler: sine", "CONFIG_VALUE", "lr_scheduler", "cosine"),
        ('trigger_word: "a\\nb"', "CONFIG_VALUE", "trigger_word", "pattern"),
        ("adapter: ../x", "CONFIG_VALUE", "adapter", "pattern"),
        ("max_train_steps: 2000000", "CONFIG_VALUE", "max_train_steps", "1000000"),
        ("epochs: 2\nmax_train_steps: 3", "CONFIG_VALUE", None, "keep one"),
        ("seed: 1\nseed: 2", "CONFIG_KEY_TWICE", "seed", "line 2"),
        ("lora_rank: 4\nnetwork_dim: 8", "CONFIG_KEY_TWICE", "lora_rank", "keep one"),
        ("a: [", "CONFIG_NOT_YAML", None, "no YAML"),
        ("- 1", "CONFIG_NOT_YAML", None, "key: value"),
        ("seed: &a 1\nlora_rank: *a", "CONFIG_NOT_YAML", None, "alias"),
        ("seed: !!python/object/apply:os.getcwd []", "CONFIG_NOT_YAML", None, "no YAML"),
        ("#" * 300_000, "CONFIG_TOO_LARGE", None, "262144"),
    ],
)
def test_a_wrong_configuration_names_the_key_and_the_limit(
    text: str, reason: str, field: str | None, words: str
) -> None:
    with pytest.raises(ConfigInvalid) as error:
        parse_config(text)
    assert (error.value.reason, error.value.field) == (reason, field)
    assert words in str(error.value)


@pytest.mark.parametrize(("spelling", "key"), SYNONYMS.items())
def test_every_synonym_sets_its_key(spelling: str, key: str) -> None:
    values: dict[str, Any] = {"lora_dropout": 0.5, "caption_dropout": 0.5, "learning_rate": 0.5, "optimizer": "sgd"}
    values |= {"lr_scheduler": "cosine", "base_model": "other", "adapter": "x", "horizontal_flip": True}
    value = values.get(key, 7)
    assert getattr(config_from_mapping({spelling: value}).config, key) == value


@settings(deadline=None)  # the first YAML of a process is slow on a busy machine
@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_typed_error(text: str) -> None:
    try:
        parse_config(text)
    except ConfigInvalid as error:
        assert error.reason.startswith("CONFIG_")


@settings(deadline=None)
@given(
    rank=st.integers(1, 256),
    alpha=st.none() | st.floats(0.01, 4096),
    rate=st.floats(1e-9, 1),
    seed=st.integers(0, 2**63 - 1),
    trigger=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=64),
    targets=st.sampled_from(["attention", "attention-ff", ["to_q", "to_out.0"]]),
)
def test_a_written_configuration_reads_back_equal(
    rank: int, alpha: float | None, rate: float, seed: int, trigger: str, targets: Any
) -> None:
    config = TrainConfig(
        lora_rank=rank, lora_alpha=alpha, learning_rate=rate, seed=seed, trigger_word=trigger, target_modules=targets
    )
    assert parse_config(dump_config(config)).config == config


def test_steps_follow_from_epochs_pictures_and_batch() -> None:
    assert TrainConfig(epochs=3, batch_size=2, gradient_accumulation_steps=2).total_steps(10) == 8
    assert TrainConfig(max_train_steps=7).total_steps(10) == 7
    assert TrainConfig().total_steps(10) == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_train_steps: 5\nlr_warmup_steps: 5", "never reached"),
        ("lora_rank: 4\nlora_alpha: 9", "twice"),
        ("learning_rate: 0.1", "high"),
        ("dataset: datasets/a\ntrain_data_dir: b", "both set"),
    ],
)
def test_what_is_probably_not_meant_is_warned_of(text: str, words: str) -> None:
    assert any(words in warning for warning in parse_config(text).warnings)
    assert not parse_config("lora_rank: 4").warnings


def test_the_examples_are_valid() -> None:
    for path in (Path(__file__).parents[3] / "examples" / "styles").glob("*/train.yaml"):
        assert parse_config(path.read_text()).config.lora_rank == yaml.safe_load(path.read_text())["lora_rank"]


def test_the_reference_of_keys_is_fresh() -> None:
    document = Path(__file__).parents[3] / "docs" / "training-config.md"
    stale = "run: python -m terroir.training.config_docs docs/training-config.md"
    assert document.read_text(encoding="utf-8") == render(), stale
