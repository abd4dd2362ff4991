"""What calls cost, as bounds: never less than a machine with convex costs could take, never more than it would."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from terroir.inference.engine.tick_costs import FORGOTTEN_AFTER, TickCosts

ROWS = st.integers(1, 64)


@given(fixed=st.floats(0.001, 1), each=st.floats(0.0001, 0.1), tried=st.sets(ROWS, min_size=1), asked=ROWS)
def test_bounds_hold_where_a_call_takes_a_fixed_time_or_one_by_its_rows(
    fixed: float, each: float, tried: set[int], asked: int
) -> None:
    def takes(rows: int) -> float:
        return max(fixed, each * rows)

    costs = TickCosts()
    for rows in tried:
        costs.learn("kind", rows, takes(rows))
    least, most = costs.least("kind", asked), costs.most("kind", asked)
    assert least is not None and most is not None
    assert most >= takes(asked) * (1 - 1e-9)
    if asked in tried or not min(tried) < asked < max(tried):  # a straight line between two is above such a machine
        assert least <= takes(asked) * (1 + 1e-9)


def test_nothing_is_known_of_a_kind_that_was_not_tried() -> None:
    costs = TickCosts()
    costs.learn("one", 2, 1.0)
    assert costs.least("other", 2) is None and costs.most("other", 2) is None


def test_single_calls_that_took_longer_do_not_count() -> None:
    costs = TickCosts()
    for seconds in (1.0, 9.0, 1.0, 1.0, 9.0):
        costs.learn("kind", 2, seconds)
    assert costs.most("kind", 2) == 1.0


def test_what_is_not_tried_again_is_forgotten() -> None:
    costs = TickCosts()
    costs.learn("kind", 4, 100.0)
    for _ in range(FORGOTTEN_AFTER):
        costs.learn("kind", 2, 1.0)
    assert costs.most("kind", 4) == 2.0, "in proportion again"


def test_rows_that_memory_does_not_suffice_for_cost_infinitely_much_until_they_fit() -> None:
    costs = TickCosts()
    for rows in (2, 4, 6, 8):
        costs.learn("kind", rows, 1.0)
    costs.refuse("kind", 8)
    assert [costs.most("kind", rows) for rows in (2, 3, 4)] == [1.0, 1.0, 1.0], "half of them may be tried"
    assert {costs.most("kind", rows) for rows in (5, 6, 8, 9)} == {math.inf}
    costs.learn("kind", 8, 2.0)
    assert costs.most("kind", 8) == 2.0


def test_kinds_that_nobody_draws_any_more_are_forgotten() -> None:
    costs = TickCosts()
    for kind in range(1000):
        costs.learn(kind, 2, 1.0)
    assert costs.most(0, 2) is None and costs.most(999, 2) == 1.0
