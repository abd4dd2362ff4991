"""Counts that fade."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.clock import FixedClock
from terroir.inference.adapters.popularity import HALF_LIFE_SECONDS, Popularity


def test_a_count_halves_in_an_hour_and_yesterdays_favourite_loses_to_todays() -> None:
    clock = FixedClock()
    popularity = Popularity[str](clock)
    for _ in range(100):
        popularity.count("old")
    clock.advance(HALF_LIFE_SECONDS)
    assert popularity.of("old") == pytest.approx(50)
    clock.advance(9 * HALF_LIFE_SECONDS)
    popularity.count("new")
    assert popularity.most(2) == ["new", "old"]
    assert popularity.most(1) == ["new"] and popularity.of("never") == 0


def test_years_of_running_overflow_nothing() -> None:
    clock = FixedClock()
    popularity = Popularity[str](clock)
    for _ in range(10):
        popularity.count("a")
        clock.advance(1e7)
    popularity.count("b")
    popularity.count("b")
    assert popularity.most(2) == ["b", "a"] and popularity.of("b") == pytest.approx(2)


def test_memory_is_bounded_and_the_popular_stay() -> None:
    popularity = Popularity[str](FixedClock(), most=10)
    for number in range(100):
        popularity.count("favourite")
        popularity.count(f"x{number}")
    assert len(popularity.most(1000)) <= 10 and popularity.most(1) == ["favourite"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e5)), max_size=40))
def test_it_equals_the_sum_of_decayed_counts(requests: list[tuple[str, float]]) -> None:
    clock = FixedClock()
    popularity = Popularity[str](clock)
    expected = dict.fromkeys("abc", 0.0)
    for region, pause in requests:
        clock.advance(pause)
        expected = {name: value * 0.5 ** (pause / HALF_LIFE_SECONDS) for name, value in expected.items()}
        popularity.count(region)
        expected[region] += 1
    assert {name: popularity.of(name) for name in "abc"} == pytest.approx(expected)
