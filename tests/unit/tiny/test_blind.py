"""Naming what the tiny base drew by eye, before the key is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from terroir.tiny.training.blind import choose, compare, numbered
from terroir.tiny.world.scene import SUBJECTS


def test_every_subject_is_shown_equally_often_from_captions_never_trained_on():
    scenes = choose(5, seed=3)
    assert Counter(scene.subject for scene in scenes) == dict.fromkeys(SUBJECTS, 5)
    assert all(scene.held_out for scene in scenes)
    assert scenes == choose(5, seed=3) != choose(5, seed=4)


def test_a_sheet_holds_all_pictures():
    page = numbered([Image.new("RGB", (64, 64), "red")] * 9, first=1)
    reds = (np.asarray(page) == (255, 0, 0)).all(-1).sum()
    assert reds == 9 * (64 * 3) ** 2


def test_the_comparison_says_what_a_subject_was_taken_for():
    table = compare(["fish", "fish", "teapot"], ["fish", "boat", "?"])
    assert table["fish"] == {"drawn": 2, "right": 1, "taken for": {"boat": 1}}
    assert table["teapot"] == {"drawn": 1, "right": 0, "taken for": {"?": 1}}
    assert table["boat"] == {"drawn": 0, "right": 0, "taken for": {}}


def test_answers_must_be_one_a_picture_and_name_subjects():
    with pytest.raises(ValueError, match="1 answers for 2 pictures"):
        compare(["fish", "boat"], ["fish"])
    with pytest.raises(ValueError, match="whale"):
        compare(["fish"], ["whale"])
