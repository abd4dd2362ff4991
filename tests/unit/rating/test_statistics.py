"""Shares with their intervals, and agreement: against published values, and by what must hold of any answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.training.rating.statistics import agreement, share

ROWS = st.integers(2, 5).flatmap(
    lambda raters: st.lists(st.lists(st.booleans(), min_size=raters, max_size=raters), min_size=1, max_size=40)
)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(hits: int, of: int, low: float, high: float) -> None:
    found = share(hits, of)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 500).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_a_share_lies_in_its_interval_and_the_interval_within_0_and_1(counts: tuple[int, int]) -> None:
    found, opposite = share(*counts), share(counts[1] - counts[0], counts[1])
    assert found is not None and opposite is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert math.isclose(found.low, 1 - opposite.high, abs_tol=1e-12)


@given(st.integers(1, 50), st.integers(2, 20))
def test_more_answers_make_the_interval_narrower(of: int, times: int) -> None:
    few, many = share(of // 2, of), share(of // 2 * times, of * times)
    assert few is not None and many is not None
    assert many.high - many.low < few.high - few.low


def test_a_share_of_nothing_is_none_and_one_above_1_is_a_defect() -> None:
    assert share(0, 0) is None
    with pytest.raises(ValueError, match="3 of 2"):
        share(3, 2)


def test_cohens_kappa_is_the_textbook_one() -> None:
    """45 both yes, 15 and 25 apart, 15 both no: observed 0.6, expected 0.54."""
    rows = [[True, True]] * 45 + [[True, False]] * 15 + [[False, True]] * 25 + [[False, False]] * 15
    found = agreement(rows)
    assert found is not None and found.method == "cohen" and found.pictures == 100
    assert round(found.kappa, 4) == 0.1304


def test_fleiss_kappa_of_two_categories_is_as_computed_by_hand() -> None:
    """Four pictures, three raters: agreement 1, 1, 1/3, 1/3; yes 7 of 12."""
    rows = [[True] * 3, [False] * 3, [True, True, False], [True, True, False]]
    found = agreement(rows)
    expected = (7 / 12) ** 2 + (5 / 12) ** 2
    assert found is not None and found.method == "fleiss"
    assert math.isclose(found.kappa, (2 / 3 - expected) / (1 - expected))


@given(ROWS)
def test_kappa_is_between_minus_1_and_1_and_1_only_where_all_agree(rows: list[list[bool]]) -> None:
    found = agreement(rows)
    if found is None:
        assert len({answer for row in rows for answer in row}) == 1, "everybody always said the same"
        return
    assert -1 - 1e-9 <= found.kappa <= 1 + 1e-9
    assert math.isclose(found.kappa, 1) == all(len(set(row)) == 1 for row in rows)


@given(ROWS)
def test_kappa_does_not_mind_which_answer_is_called_yes(rows: list[list[bool]]) -> None:
    one, other = agreement(rows), agreement([[not answer for answer in row] for row in rows])
    assert (one is None) == (other is None)
    assert one is None or other is None or math.isclose(one.kappa, other.kappa, abs_tol=1e-9)


def test_one_rater_agrees_with_nobody_and_rows_have_one_length() -> None:
    assert agreement([]) is None
    assert agreement([[True], [False]]) is None
    with pytest.raises(ValueError, match="different lengths"):
        agreement([[True, False], [True]])
