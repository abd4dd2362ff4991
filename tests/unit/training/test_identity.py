"""A checkpoint belongs to one run, and says fact by fact why it does not go on in another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_kit import SMALL, Bench, MemorySinks, pictures

from terroir.training.config import TrainConfig
from terroir.training.engine.identity import differences, facts
from terroir.training.engine.ports import TrainRun
from terroir.training.errors import CheckpointMismatch

RUN = TrainRun(TrainConfig.model_validate(SMALL), Path(), {"unet": "a" * 64, "vae": "b" * 64})


def of(**changes: Any) -> dict[str, Any]:
    return facts(replace(RUN, config=TrainConfig.model_validate({**SMALL, **changes})), "c" * 64, 4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lora_rank": 16}, {"lora_rank": "2 -> 16"}),
        ({"use_dora": True, "learning_rate": 1e-3}, {"learning_rate": "0.01 -> 0.001", "use_dora": "false -> true"}),
        ({"target_modules": ["to_q"]}, {"target_modules": 'attention -> ["to_q"]'}),
        ({"block_lr_weights": {"mid_block": 0}}, {"block_lr_weights": '{} -> {"mid_block": 0.0}'}),
        ({"ema_decay": 0.9}, {"ema_decay": "unset -> 0.9"}),
        ({"num_workers": 2}, {"num_workers": "1 -> 2"}),
    ],
    ids=str,
)
def test_each_changed_key_is_told_with_both_values(changes: dict[str, Any], told: dict[str, str]) -> None:
    assert differences(of(), of(**changes)) == told


@pytest.mark.parametrize(
    "changes",
    [
        {"save_steps": 7}, {"max_bad_batches": 3}, {"output_dir": "x"}, {"adapter": "y"}, {"priority": "high"},
        {"team": "t"}, {"gpus": 0.5}, {"preemptible": False}, {"max_retries": 9}, {"sample_prompts": ["a cat"]},
        {"publish_gate": "warn"}, {"judge_seeds": 9}, {"base_model": "elsewhere"}, {"dataset": "datasets/other"},
        {"reg_data_dir": "prior"}, {"metadata_path": "m.csv"}, {"profile": ["cpu-smoke"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_decide_the_weights_is_no_difference(changes: dict[str, Any]) -> None:
    assert differences(of(), of(**changes)) == {}


def test_digests_are_told_by_their_beginnings() -> None:
    other = facts(replace(RUN, component_digests={"unet": "d" * 64, "vae": "b" * 64}), "e" * 64, 5)
    assert differences(of(), other) == {
        "base unet": f"{'a' * 12} -> {'d' * 12}", "data": f"{'c' * 12} -> {'e' * 12}", "steps in all": "4 -> 5",
    }  # fmt: skip


@given(st.sampled_from(sorted(of().keys() & TrainConfig.model_fields.keys())))
def test_a_checkpoint_from_before_a_key_existed_had_its_default(key: str) -> None:
    usual = facts(replace(RUN, config=TrainConfig()), "c" * 64, 4)
    old = {name: value for name, value in usual.items() if name != key}
    assert differences(old, usual) == {} and differences(usual, old) == {}


def test_a_resume_with_another_configuration_is_refused_with_every_difference(small: Bench) -> None:
    sinks = MemorySinks()
    small.run(sinks)
    with pytest.raises(CheckpointMismatch, match="step 4") as error:
        small.run(sinks, data=pictures(4), lora_rank=4, use_rslora=True)
    told = error.value.metadata
    assert (told["lora_rank"], told["use_rslora"]) == ("2 -> 4", "false -> true")
    assert set(told) == {"lora_rank", "use_rslora", "data"} and error.value.reason == "CHECKPOINT_MISMATCH"
    assert "lora_rank 2 -> 4" in str(error.value)


def test_a_checkpoint_of_an_earlier_format_is_refused(small: Bench) -> None:
    sinks = MemorySinks()
    small.run(sinks)
    last = sinks.checkpoints[-1]
    sinks.checkpoints[-1] = replace(last, state=last.state.replace(b'\\"format\\": 2', b'\\"format\\": 1'))
    with pytest.raises(CheckpointMismatch, match="format 1"):
        small.run(sinks)
