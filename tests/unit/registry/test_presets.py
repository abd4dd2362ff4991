"""Presets: limits, and what is stored is what was meant."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.registry.moving.preset_shelf import PresetShelf
from terroir.registry.moving.presets import MAX_PRESETS, Preset, ensure_presets
from terroir.registry.moving.samples import MAX_SAMPLES, Sample

RIGHT = Preset("Ink", ("jnsty", "ink style"), "jnsty, {prompt}, wet paper", "photo", 0.8)
TEXTS = st.text(st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="{}"), max_size=60)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"display_name": ""}, "TEXT_MISSING"),
        ({"display_name": "x" * 121}, "TEXT_TOO_LONG"),
        ({"trigger_words": ("x" * 65,)}, "TEXT_TOO_LONG"),
        ({"trigger_words": ("",)}, "TEXT_MISSING"),
        ({"trigger_words": ("x",) * 17}, "TOO_MANY"),
        ({"prompt_template": "no place"}, "PRESET_TEMPLATE"),
        ({"prompt_template": "{prompt} and {prompt}"}, "PRESET_TEMPLATE"),
        ({"prompt_template": "{prompt}" + "x" * 500}, "TEXT_TOO_LONG"),
        ({"prompt_template": "{prompt}\x00"}, "CONTROL_CHARACTERS"),
        ({"negative_prompt": "x" * 501}, "TEXT_TOO_LONG"),
        ({"weight": 2.5}, "OUT_OF_RANGE"),
        ({"weight": math.nan}, "OUT_OF_RANGE"),
    ],
)
def test_a_preset_outside_its_limits_is_refused_with_its_reason(change: dict[str, object], reason: str) -> None:
    ensure_presets([RIGHT], "presets")
    with pytest.raises(InvalidArgument) as refused:
        ensure_presets([Preset("First"), replace(RIGHT, **change)], "presets")  # type: ignore[arg-type]  # one field a row
    assert refused.value.reason == reason
    assert (refused.value.field or "").startswith("presets[1]")


def test_presets_are_few_and_have_names_of_their_own() -> None:
    ensure_presets([], "presets")
    ensure_presets([Preset(str(number)) for number in range(MAX_PRESETS)], "presets")
    for presets, reason in (
        ([RIGHT, RIGHT], "PRESET_DUPLICATE"),
        ([Preset(str(number)) for number in range(MAX_PRESETS + 1)], "TOO_MANY"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            ensure_presets(presets, "presets")
        assert refused.value.reason == reason


@given(
    st.builds(
        Preset,
        display_name=TEXTS.filter(bool),
        trigger_words=st.lists(TEXTS.filter(bool), max_size=16).map(tuple),
        prompt_template=st.just("") | TEXTS.map(lambda text: f"{text}{{prompt}}"),
        negative_prompt=TEXTS,
        weight=st.floats(-2, 2),
    )
)
def test_a_preset_within_its_limits_survives_storage(preset: Preset) -> None:
    ensure_presets([preset], "presets")
    assert Preset.from_body(json.loads(json.dumps(preset.to_body()))) == preset


def test_a_new_sample_comes_first_and_the_oldest_gives_way() -> None:
    shelf = PresetShelf((RIGHT,))
    samples = [Sample(f"{number:064x}", "image/png", 8, 8) for number in range(MAX_SAMPLES + 2)]
    for sample in samples:
        shelf = shelf.with_sample(sample)
    assert list(shelf.samples) == samples[:1:-1]
    assert shelf.sample(samples[0].digest) is None
    assert shelf.presets == (RIGHT,)


def test_the_same_picture_again_moves_to_the_front_with_its_new_caption() -> None:
    old, other = Sample("a" * 64, "image/png", 8, 8, "old"), Sample("b" * 64, "image/png", 8, 8)
    shelf = PresetShelf().with_sample(old).with_sample(other).with_sample(replace(old, caption="new"))
    assert [(sample.digest[0], sample.caption) for sample in shelf.samples] == [("a", "new"), ("b", "")]
    assert PresetShelf.from_body(json.loads(json.dumps(shelf.to_body()))) == shelf
    assert shelf.with_presets([RIGHT]).samples == shelf.samples
