"""A key that nothing acts on yet is refused or told, never taken in silence."""

from __future__ import annotations

from typing import Any

import pytest

from terroir.training.config import TrainConfig
from terroir.training.config.in_force import ensure_in_force, without_effect
from terroir.training.config.scheduling_keys import Priority
from terroir.training.errors import ConfigInvalid


@pytest.mark.parametrize(
    "given",
    [
        {"sample_prompts": ["a hill"]}, {"sample_steps": 5}, {"judge_seeds": 8}, {"judge_prompts": ["a hill"]},
        {"min_style_gain": 0.5}, {"min_prompt_agreement": 0.5}, {"min_diversity": 0.1}, {"max_memorisation": 0.5},
        {"rating_gate": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_key_whose_effect_would_be_missed_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        ensure_in_force(TrainConfig(**given))
    assert (refused.value.reason, refused.value.field) == ("CONFIG_KEY_NOT_IN_FORCE", next(iter(given)))


@pytest.mark.parametrize("given", [{"publish_gate": "enforce"}, {"judge_checkpoints": 2}], ids=str)
def test_what_profiles_and_registrations_set_is_taken_with_a_warning(given: dict[str, Any]) -> None:
    config = TrainConfig(**given)
    ensure_in_force(config)
    assert [warning.partition(" ")[0] for warning in without_effect(config)] == list(given)


def test_a_plain_run_is_told_nothing() -> None:
    assert not list(
        without_effect(TrainConfig(lora_rank=4, ema_decay=0.9, priority=Priority.HIGH, team="tea", gpus=0.5))
    )
