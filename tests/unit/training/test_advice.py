"""Advice: whatever a run is, what it is told to change is allowed, changes something, and is in the docs too."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from any_config import any_keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terroir.training import advice, errors
from terroir.training.advice import Symptom
from terroir.training.advice.ask import _BY_REASON, _BY_THRESHOLD
from terroir.training.advice.docs import render
from terroir.training.advice.losses import LEAST_STEPS, rises, scatter
from terroir.training.advice.rows import ROWS
from terroir.training.config import TrainConfig
from terroir.training.config.parser import config_from_mapping

PAGE = Path(__file__).parents[3] / "docs" / "troubleshooting.md"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(any_keys(), st.sampled_from(Symptom))
def test_what_a_run_is_told_to_change_is_allowed_and_really_a_change(keys: dict[str, Any], symptom: Symptom) -> None:
    config = config_from_mapping(keys).config
    for remedy in ROWS[symptom].remedies:
        changed = {} if remedy.changed is None else remedy.changed(config)
        again = TrainConfig.model_validate(config.model_dump() | changed)
        for key, after in changed.items():
            assert getattr(again, key) == after != getattr(config, key), remedy.words
        found = remedy.of(config)
        assert found is None or [change.key for change in found.changes] == list(changed)
        assert all(change.before != change.after for change in (found.changes if found else ()))


def first(symptom: Symptom, **keys: Any) -> str:
    return str(advice.for_symptom(symptom, TrainConfig(**keys)).tries[0])


@pytest.mark.parametrize(
    ("symptom", "keys", "told"),
    [
        (
            Symptom.OUT_OF_MEMORY,
            {"batch_size": 4},
            "batch_size 4 → 2 and gradient_accumulation_steps 1 → 2 (the same step in half the memory)",
        ),
        (
            Symptom.OUT_OF_MEMORY,
            {"batch_size": 5, "gradient_accumulation_steps": 3},
            "batch_size 5 → 2 and gradient_accumulation_steps 3 → 8 (the same step in half the memory)",
        ),
        (Symptom.OUT_OF_MEMORY, {}, "mixed_precision no → bf16 (activations take half)"),
        (
            Symptom.OUT_OF_MEMORY,
            {"mixed_precision": "bf16"},
            "gradient_checkpointing false → true (activations are computed twice, not kept)",
        ),
        (
            Symptom.OUT_OF_MEMORY,
            {"mixed_precision": "bf16", "gradient_checkpointing": True, "resolution": 1024},
            "resolution 1024 → 768 (nine sixteenths of the pixels)",
        ),
        (Symptom.NON_FINITE, {"mixed_precision": "fp16"}, "mixed_precision fp16 → bf16 (fp16 overflows at 65504)"),
        (Symptom.DIVERGING, {"learning_rate": 3e-3}, "learning_rate 0.003 → 0.001 (steps that are too long miss the "
         "valley)"),
        (Symptom.TOO_WEAK, {"learning_rate": 1e-4}, "learning_rate 0.0001 → 0.003 (what was not learnt at this rate)"),
        (Symptom.TOO_WEAK, {"base_model": "sd15", "learning_rate": 2e-4},
         "learning_rate 0.0002 → 0.0004 (what was not learnt at this rate)"),
        (Symptom.OVER_FITTED, {"max_train_steps": 2000},
         "max_train_steps 2000 → 1000 (pictures are seen half as often)"),
        (Symptom.OVER_FITTED, {}, "epochs unset → 5 (pictures are seen half as often)"),
        (Symptom.TEXT_ENCODER_SPOILT, {"learning_rate": 1e-4, "text_encoder_lr": 1e-4, "max_train_steps": 900},
         "text_encoder_lr 0.0001 → 1e-05 and text_encoder_stop_step unset → 300 (it needs far less than the denoiser)"),
    ],
)  # fmt: skip
def test_values_come_from_the_run_s_own_configuration(symptom: Symptom, keys: dict[str, Any], told: str) -> None:
    assert first(symptom, **keys) == told


def test_halving_a_batch_never_makes_a_step_smaller() -> None:
    for batch in range(2, 40):
        config = TrainConfig(batch_size=batch)
        tried = {
            change.key: int(change.after)
            for change in advice.for_symptom(Symptom.OUT_OF_MEMORY, config).tries[0].changes
        }
        assert tried["batch_size"] * tried["gradient_accumulation_steps"] >= batch


def test_the_form_of_an_adapter_that_a_run_goes_on_from_is_never_touched() -> None:
    config = TrainConfig(pretrained_lora="ink@production", lora_rank=32, lora_alpha=64, target_modules="attention-ff")
    keys = {c.key for symptom in Symptom for one in advice.for_symptom(symptom, config).tries for c in one.changes}
    assert not keys & {"lora_rank", "lora_alpha", "target_modules", "conv_rank"}


def test_a_sentence_names_the_first_things_and_the_page() -> None:
    told = advice.for_symptom(Symptom.OUT_OF_MEMORY, TrainConfig(batch_size=4))
    assert told.sentence(2) == (
        "try batch_size 4 → 2 and gradient_accumulation_steps 1 → 2 (the same step in half the memory); "
        "else mixed_precision no → bf16 (activations take half)"
    )
    assert told.page == "docs/troubleshooting.md#out-of-memory"


def test_reasons_and_thresholds_are_those_of_the_code() -> None:
    known = {value.reason for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "reason")}
    assert set(_BY_REASON) <= known
    assert set(_BY_THRESHOLD) <= set(TrainConfig.model_fields)
    assert advice.for_reason("OUT_OF_MEMORY", TrainConfig()) == advice.for_symptom(Symptom.OUT_OF_MEMORY, TrainConfig())
    assert advice.for_reason("JOB_NOT_FOUND", TrainConfig()) is None


def test_a_verdict_is_answered_by_the_gravest_failure_first() -> None:
    def symptoms(*failed: str) -> list[Symptom]:
        return [one.symptom for one in advice.for_verdict(failed, TrainConfig())]

    assert symptoms() == []
    assert symptoms("min_style_gain", "min_diversity") == [Symptom.LITTLE_VARIETY, Symptom.TOO_WEAK]
    assert symptoms("min_prompt_agreement", "max_memorisation") == [Symptom.OVER_FITTED, Symptom.CAPTIONS_IGNORED]


def test_what_is_learnt_by_heart_is_never_told_to_train_longer() -> None:
    told = advice.for_verdict(["min_style_gain", "max_memorisation"], TrainConfig(max_train_steps=100))
    assert [one.symptom for one in told] == [Symptom.OVER_FITTED]


def losses(count: int, spread: float, slope: float = 0.0) -> list[float]:
    """A curve from 1 to 1 + slope whose steps have this standard deviation over their mean."""
    drawn = random.Random(5)
    return [(1 + slope * step / count) * max(0.01, 1 + spread * drawn.gauss(0, 1)) for step in range(count)]


def test_scatter_and_rise_are_told_apart() -> None:
    config = TrainConfig(learning_rate=3e-3)
    noisy = advice.for_losses(losses(200, 0.65), config)
    rising = advice.for_losses(losses(200, 0.1, slope=3), config)
    assert noisy is not None and noisy.symptom is Symptom.NOISY_LOSS
    assert rising is not None and rising.symptom is Symptom.DIVERGING
    assert advice.for_losses(losses(200, 0.3), config) is None
    assert advice.for_losses(losses(200, 0.2, slope=-0.9), config) is None


def test_a_long_curve_that_does_not_fall_is_told_and_one_that_does_is_not() -> None:
    config = TrainConfig(learning_rate=1e-5)
    flat = advice.for_losses(losses(400, 0.3), config)
    assert flat is not None and flat.symptom is Symptom.FLAT_LOSS
    assert "learning_rate 1e-05 → " in advice.hint(losses(400, 0.3), config)
    assert advice.for_losses(losses(400, 0.3, slope=-0.3), config) is None
    assert advice.hint(losses(399, 0.3), config) == ""


def test_a_short_or_broken_curve_says_nothing() -> None:
    assert advice.for_losses(losses(LEAST_STEPS - 1, 2.0), TrainConfig()) is None
    assert advice.for_losses([], TrainConfig()) is None
    assert advice.for_losses([float("nan")] * 100, TrainConfig()) is None
    assert advice.for_losses([0.0] * 100, TrainConfig()) is None


@given(st.lists(st.floats(0.01, 10), min_size=LEAST_STEPS, max_size=120), st.floats(0.1, 10))
def test_scatter_and_rise_do_not_depend_on_the_loss_s_scale(curve: list[float], scale: float) -> None:
    assert scatter([scale * loss for loss in curve]) == pytest.approx(scatter(curve), rel=1e-6, abs=1e-9)
    assert rises([2 * loss for loss in curve]) == rises(curve)


def test_the_page_has_every_symptom_and_every_remedy() -> None:
    page = render()
    assert set(ROWS) == set(Symptom)
    for symptom, row in ROWS.items():
        assert f'<a id="{symptom}"></a>\n\n## {row.title}\n\n{row.seen}' in page
        assert row.remedies and all(f"| {remedy.words} | {remedy.why} |" in page for remedy in row.remedies)
        assert row.seen.endswith(".")


def test_remedies_name_keys_that_exist() -> None:
    keys = set(TrainConfig.model_fields)
    for row in ROWS.values():
        for remedy in row.remedies:
            named = {part.split(":")[0] for part in remedy.words.split("`")[1::2]}
            assert named <= keys | {"all-linear-conv", "fp16", "no", "bf16", "terroir dataset images"}, remedy.words


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: make docs"
