"""Rank correlation against cases that are known, and p-values that neither flatter nor panic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compatibility.rank_statistics import mantel_p, permutation_p, ranks, spearman

numbers = st.lists(st.integers(-20, 20).map(float), min_size=3, max_size=30)


def test_ties_share_the_mean_of_their_ranks():
    assert list(ranks([3, 1, 3, 2])) == [3.5, 1, 3.5, 2]


@pytest.mark.parametrize(
    ("first", "second", "rho"),
    [
        ([1, 2, 3], [10, 200, 3000], 1),
        ([1, 2, 3], [5, 4, 3], -1),
        ([1, 1, 1], [1, 2, 3], 0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 1 - 6 * 4 / (5 * 24)),
    ],
)
def test_known_correlations(first, second, rho):
    assert spearman(first, second) == pytest.approx(rho)


@given(numbers)
def test_only_the_order_counts(values):
    assert spearman(values, [v**3 for v in values]) == pytest.approx(1 if len(set(values)) > 1 else 0)
    assert spearman(values, [-v for v in values]) == pytest.approx(-1 if len(set(values)) > 1 else 0)


def test_a_perfect_order_is_unlikely_and_noise_is_not():
    ordered = list(range(12))
    noise = list(np.random.default_rng(3).permutation(12))
    assert permutation_p(ordered, ordered, rounds=2000) < 0.005
    assert permutation_p(ordered, noise, rounds=2000) > 0.05


def test_pairs_that_one_adapter_explains_are_not_taken_for_many_witnesses():
    """One strong adapter raises all its pairs: shuffling pairs takes that for certain, shuffling names does not."""
    names = "abcdefgh"
    pairs = list(itertools.combinations(names, 2))
    score = {pair: float("a" in pair) for pair in pairs}
    survival = {pair: float("a" in pair) + 0.001 * number for number, pair in enumerate(pairs)}
    independent = permutation_p(list(score.values()), list(survival.values()), rounds=2000)
    assert independent < 0.005
    assert mantel_p(score, survival, rounds=2000) > 0.05


def test_two_kinds_of_adapters_change_places_among_themselves():
    """Pairs between six old and two new adapters, as a confirmation has them: names must not cross the kinds."""
    pairs = [(old, new) for old in "abcdef" for new in "xy"]
    score = {pair: float(number) for number, pair in enumerate(pairs)}
    assert mantel_p(score, score, rounds=500) < 0.02
    with pytest.raises(ValueError, match="not measured"):
        mantel_p(
            {("a", "b"): 1.0, ("b", "c"): 2.0, ("c", "d"): 3.0}, {("a", "b"): 1.0, ("b", "c"): 2.0, ("c", "d"): 3.0}
        )
