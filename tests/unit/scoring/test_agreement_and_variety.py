"""Agreement by the order of texts, variety among seeds, and the distance of sets: their ends and their algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scoring_kit import Axes, MeanColour, drawn, scenes, shows

from terroir.scoring.agreement import PromptRuler
from terroir.scoring.set_distance import squared_set_distance
from terroir.scoring.variety import Variety, variety

TEXTS = ("a", "b", "c", "d")


def test_pictures_of_their_own_prompts_agree_fully():
    ruler = PromptRuler(Axes(TEXTS), TEXTS)
    assert ruler.agreement([shows(n) for n in range(4)], TEXTS) == 1.0


def test_pictures_of_other_prompts_do_not_agree():
    ruler = PromptRuler(Axes(TEXTS), TEXTS)
    assert ruler.agreement([shows((n + 1) % 4) for n in range(4)], TEXTS) == -1.0


def test_captions_set_a_single_prompt_apart():
    ruler = PromptRuler(Axes(TEXTS), ["a"], others=["A", "b", "c", "b"])
    assert ruler.agreement([shows(0)], ["a"]) == 1.0
    assert ruler.agreement([shows(2)], ["a"]) < 0


def test_a_single_prompt_with_nothing_beside_it_cannot_be_told_apart():
    with pytest.raises(ValueError, match="second prompt"):
        PromptRuler(Axes(TEXTS), ["a"], others=["A"])


def test_the_level_of_a_clip_does_not_count_only_its_order():
    """A large CLIP has 0.2 with any text; a style that it does not know lowers all: the order is what stays."""

    class Dim(Axes):
        def pictures(self, pictures):
            return 0.2 + 0.05 * super().pictures(pictures)

    assert PromptRuler(Dim(TEXTS), TEXTS).agreement([shows(n) for n in range(4)], TEXTS) == 1.0


def test_equal_pictures_have_no_variety():
    (picture,) = drawn(scenes(1, seed=1), seed=1)
    found = variety(MeanColour(), [[picture] * 3])
    assert found.embedding == pytest.approx(0, abs=1e-5)
    assert found.structure == pytest.approx(0, abs=1e-5)


def test_variety_is_within_prompts_not_between_them():
    first, second = drawn(scenes(2, seed=2), seed=2)
    assert variety(MeanColour(), [[first] * 2, [second] * 2]).structure == pytest.approx(0, abs=1e-5)
    assert variety(MeanColour(), [[first, second]]).structure > 0.1


@given(st.floats(0, 2), st.floats(0, 2), st.floats(0, 2), st.floats(0, 2))
def test_a_share_of_variety_is_within_bounds_and_whole_of_itself(a, b, c, d):
    ours, base = Variety(a, b), Variety(c, d)
    assert 0 <= ours.share_of(base) <= 1
    assert ours.share_of(ours) == 1


def test_variety_in_one_space_does_not_pay_for_sameness_in_the_other():
    assert Variety(9.0, 0.0).share_of(Variety(1.0, 1.0)) == 0.5


def test_variety_needs_two_pictures_of_a_prompt():
    with pytest.raises(ValueError, match="judge_seeds"):
        variety(MeanColour(), [[Image.new("RGB", (8, 8))]])


def unit(seed: int, count: int, shift: float = 0.0):
    vectors = np.random.default_rng(seed).standard_normal((count, 12)).astype(np.float32)
    vectors[:, 0] += shift
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(2, 30))
def test_set_distance_is_the_same_both_ways(seed, first, second):
    one, other = unit(seed, first), unit(seed + 1, second, 1.0)
    assert squared_set_distance(one, other) == pytest.approx(squared_set_distance(other, one), abs=1e-6)


def test_two_draws_of_one_set_are_no_distance_apart_on_average():
    """Unbiased: small sets of one kind must not look further off than large ones."""
    found = [squared_set_distance(unit(seed, 4), unit(seed + 5000, 24)) for seed in range(2000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / len(found) ** 0.5
    assert np.mean([squared_set_distance(unit(s, 4), unit(s + 500, 24, 3.0)) for s in range(50)]) > 0.5


def test_a_set_of_one_has_no_distance():
    with pytest.raises(ValueError, match="two pictures"):
        squared_set_distance(unit(1, 1), unit(2, 5))
