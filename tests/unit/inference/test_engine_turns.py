"""Shapes take turns by device time, requests of a shape by how long they waited. Time is simulated."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.inference.engine.turns import Turns

COSTS = st.dictionaries(st.integers(0, 5), st.integers(1, 50), min_size=1, max_size=5)
"""Simulated seconds of one call, by shape; whole, so that sums are exact."""


def filled(costs: dict[int, int], members: int = 1) -> Turns[str]:
    turns: Turns[str] = Turns()
    for shape in costs:
        for index in range(members):
            turns.add(shape, f"{shape}-{index}")
    return turns


def take(turns: Turns[str], costs: dict[int, int], rows: int = 99) -> tuple[int, list[str]]:
    turn = turns.next()
    assert turn is not None
    shape, members = turn
    assert isinstance(shape, int)
    turns.spent(shape, float(costs[shape]), members[:rows])
    return shape, members[:rows]


@given(costs=COSTS, calls=st.integers(1, 200))
def test_shapes_never_differ_by_more_device_time_than_one_call_takes(costs: dict[int, int], calls: int) -> None:
    turns, spent = filled(costs), Counter[int]()
    for _ in range(calls):
        shape, _members = take(turns, costs)
        spent[shape] += costs[shape]
    assert max(spent[shape] for shape in costs) - min(spent[shape] for shape in costs) <= max(costs.values())


@given(costs=COSTS, before=st.integers(0, 100), cost=st.integers(1, 50))
def test_a_shape_that_comes_later_waits_for_at_most_one_call_of_each_other(
    costs: dict[int, int], before: int, cost: int
) -> None:
    turns, new = filled(costs), 9
    for _ in range(before):
        take(turns, costs)
    turns.add(new, "new")
    waited = 0
    while take(turns, {**costs, new: cost})[0] != new:
        waited += 1
    assert waited <= len(costs)


@given(large=st.integers(10, 1000), small=st.integers(1, 5))
def test_a_request_of_large_pictures_and_one_of_small_ones_do_not_starve_each_other(large: int, small: int) -> None:
    costs = {0: large, 1: small}
    turns, calls = filled(costs), Counter[int]()
    clock = 0
    while clock < 20 * (large + small):
        shape, _members = take(turns, costs)
        calls[shape] += 1
        clock += costs[shape]
    assert calls[0] >= 9, "large pictures have half the time"
    assert calls[1] >= 9 * large // small, "and small ones the other half"


@given(before=st.integers(0, 5), stays=st.integers(1, 30))
def test_a_shape_that_was_away_has_no_credit_from_that_time(before: int, stays: int) -> None:
    away, other = 0, 1
    both = {away: 1, other: 1}
    turns = filled(both)
    for _ in range(2 * before):
        take(turns, both)
    turns.remove(away, "0-0")
    for _ in range(stays):
        take(turns, both)
    turns.add(away, "0-0")
    order = [take(turns, both)[0] for _ in range(6)]
    assert all(first != second for first, second in pairwise(order)), "they alternate from the start"


@given(members=st.integers(1, 12), rows=st.integers(1, 12))
def test_within_a_shape_nobody_steps_twice_while_another_waits(members: int, rows: int) -> None:
    turns, went = filled({0: 1}, members), Counter[str]()
    for _ in range(20):
        went.update(take(turns, {0: 1}, rows)[1])
        counts = [went[f"0-{index}"] for index in range(members)]
        assert max(counts) - min(counts) <= 1


def test_order_does_not_change_while_all_step_together() -> None:
    """Banks of weights are kept by the order of the rows: another order each tick would build them each tick."""
    turns = filled({0: 1}, 4)
    assert len({tuple(take(turns, {0: 1})[1]) for _ in range(5)}) == 1


def test_nobody_is_left_after_all_have_gone() -> None:
    turns = filled({0: 1, 1: 1}, 2)
    for member in list(turns):
        turns.remove(int(member[0]), member)
    assert len(turns) == 0 and turns.next() is None
    turns.spent(0, 1.0, ["0-0"])
    with pytest.raises(KeyError):
        turns.remove(0, "0-0")
