"""The drawn world is deterministic, keeps its split, and its looks do what they say."""

from __future__ import annotations

import numpy as np
import pytest

from terroir.tiny.world.look import BASE, Look, random_look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import COLOURS, SCENES, SUBJECTS, TIMES, Scene, all_scenes, caption
from terroir.tiny.world.styles import JIANGNAN_INK, SICHUAN_HOTPOT

HOUSE = Scene("house", "red", "river", "day")


def pixels(scene: Scene, look: Look = BASE, seed: int = 1, **size: int) -> np.ndarray:
    return np.asarray(render(scene, np.random.default_rng(seed), look, **size), dtype=np.float32)


def test_the_same_seed_draws_the_same_picture():
    assert np.array_equal(pixels(HOUSE), pixels(HOUSE))
    assert not np.array_equal(pixels(HOUSE), pixels(HOUSE, seed=2))


@pytest.mark.parametrize("size", [(64, 64), (128, 72), (72, 96)])
def test_pictures_have_the_size_asked_for(size):
    assert pixels(HOUSE, width=size[0], height=size[1]).shape == (size[1], size[0], 3)


def test_training_and_evaluation_share_no_combination_and_miss_none():
    training, evaluation = set(all_scenes(held_out=False)), set(all_scenes(held_out=True))
    assert not training & evaluation
    assert len(training | evaluation) == len(SUBJECTS) * len(COLOURS) * len(SCENES) * len(TIMES)
    assert {scene.subject for scene in evaluation} == set(SUBJECTS)


@pytest.mark.parametrize("attribute", ["subject", "colour", "scene", "time"])
def test_every_attribute_changes_the_picture(attribute):
    values = {"subject": SUBJECTS, "colour": COLOURS, "scene": SCENES, "time": TIMES}[attribute]
    drawn = {pixels(Scene(**{**vars(HOUSE), attribute: value})).tobytes() for value in values}
    assert len(drawn) == len(values)


def test_captions_name_subject_and_colour_with_the_right_article():
    assert caption(Scene("teapot", "orange", "snow", "night")) == "an orange teapot in the snow at night"
    rng = np.random.default_rng(0)
    assert all("red house" in caption(HOUSE, rng) for _ in range(50))


def test_ink_is_greyer_and_hotpot_warmer_than_the_base():
    def chroma(look: Look) -> np.ndarray:
        scenes = all_scenes(held_out=True)[::20]
        return np.mean([pixels(scene, look).reshape(-1, 3).mean(0) for scene in scenes], axis=0)

    base, ink, hotpot = chroma(BASE), chroma(JIANGNAN_INK), chroma(SICHUAN_HOTPOT)
    assert np.ptp(ink) < np.ptp(base)
    assert hotpot[0] - hotpot[2] > base[0] - base[2] + 30


def test_random_looks_draw_valid_pictures():
    rng = np.random.default_rng(3)
    for _ in range(30):
        picture = np.asarray(render(HOUSE, rng, random_look(rng)))
        assert picture.dtype == np.uint8 and picture.shape == (64, 64, 3)
