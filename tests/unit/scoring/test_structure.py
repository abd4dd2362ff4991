"""Structure: blind to brightness and contrast, and the worst tile tells pictures with a common background apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scoring_kit import drawn, scenes

from terroir.scoring.structure import squares, structure_of, structures, worst_tile_distance

PICTURES = drawn(scenes(6, seed=1), seed=1)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 1.0), st.floats(0.0, 0.3), st.integers(0, 5))
def test_brightness_and_contrast_change_nothing(contrast, brightness, number):
    pixels = squares([PICTURES[number]], 32)
    np.testing.assert_allclose(structure_of(pixels * contrast + brightness), structure_of(pixels), atol=2e-4)


def test_structures_are_unit_vectors():
    np.testing.assert_allclose(np.linalg.norm(structures(PICTURES), axis=1), 1, atol=1e-5)


def test_a_plain_picture_has_no_structure_and_no_nan():
    assert np.abs(structures([Image.new("RGB", (64, 64), (200, 10, 10))])).max() < 1e-4


def test_the_size_of_a_picture_does_not_matter():
    large = [picture.resize((128, 128), Image.Resampling.NEAREST) for picture in PICTURES]
    np.testing.assert_allclose(structures(large), structures(PICTURES), atol=1e-3)


def test_worst_tile_distance_is_zero_of_itself_and_the_same_both_ways():
    vectors = structures(PICTURES)
    distances = worst_tile_distance(vectors[:, None], vectors[None])
    np.testing.assert_allclose(np.diag(distances), 0, atol=1e-6)
    np.testing.assert_allclose(distances, distances.T, atol=1e-6)


def test_one_tile_that_differs_counts_in_full():
    """A common background must not make pictures alike: the whole correlates above 0.9, the worst tile is far off."""
    picture = PICTURES[0]
    changed = picture.copy()
    changed.paste(Image.effect_noise((16, 16), 120).convert("RGB"), (16, 16))
    one, other = structures([picture, changed])
    assert float(one @ other) > 0.85
    assert worst_tile_distance(one, other) > 1.0


def test_vectors_of_another_length_are_refused():
    with pytest.raises(ValueError, match="reshape"):
        worst_tile_distance(structure_of(squares(PICTURES, 16)), structure_of(squares(PICTURES, 16)))
