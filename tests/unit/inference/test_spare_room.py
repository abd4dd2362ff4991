"""How many rows nobody would miss, on machines that are played: by what was tried, and never by what is hoped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.inference.engine.spare_room import LATER_SHARE, SpareRoom

MOST = 32


def room(padding: bool = False, tick_seconds: float = 0.05) -> SpareRoom:
    return SpareRoom(MOST, tick_seconds, (lambda rows: (1 << (rows - 1).bit_length()) - rows) if padding else None)


def test_nothing_that_was_never_tried_joins_anybody() -> None:
    unknown = room()
    assert unknown.beside("shape", 2, mixed=False, mixed_with=True) == 0
    unknown.learn("shape", 2, 0.003, mixed=False, beside=False)
    assert unknown.beside("shape", 2, mixed=False, mixed_with=False) == 0
    assert unknown.beside("shape", 2, mixed=False, mixed_with=True) == 0


def test_a_machine_on_which_rows_cost_linearly_has_no_room_beside_anybody() -> None:
    linear = room()
    for rows in range(2, MOST + 1, 2):
        linear.learn("shape", rows, rows * 0.02, mixed=False, beside=False)
    assert {linear.beside("shape", rows, mixed=False, mixed_with=False) for rows in range(1, 17)} == {0}


def test_a_machine_on_which_few_rows_cost_as_much_as_one_is_filled_up_to_where_they_do_not() -> None:
    flat = room()
    for rows in range(2, MOST + 1, 2):
        flat.learn("shape", rows, max(0.020, rows * 0.002), mixed=False, beside=False)
    assert flat.beside("shape", 2, mixed=False, mixed_with=False) == 8
    assert flat.beside("shape", 12, mixed=False, mixed_with=False) == 0


@given(fixed=st.floats(0.001, 0.1), each=st.floats(0.0001, 0.05), calls=st.integers(1, 40), rows=st.integers(1, 8))
def test_calls_alone_teach_costs_and_stay_within_their_time(fixed: float, each: float, calls: int, rows: int) -> None:
    def takes(rows: int) -> float:
        return max(fixed, each * rows)

    learning = room()
    for _ in range(calls):
        alone = learning.alone("shape", 2, mixed=False)
        assert alone == 2 or takes(alone) <= 0.05 * (1 + 1e-9)
        learning.learn("shape", alone, takes(alone), mixed=False, beside=False)
    learning.learn("shape", rows, takes(rows), mixed=False, beside=False)
    more = learning.beside("shape", rows, mixed=False, mixed_with=False)
    assert takes(rows + more) <= (1 + LATER_SHARE) * takes(rows) * (1 + 1e-9)
    if calls > 8 and takes(MOST) <= min(0.05, (1 + LATER_SHARE) * takes(rows)):
        assert more == MOST - rows, "all room was found"


def test_rows_that_wear_different_compositions_are_another_kind_of_call() -> None:
    dear = room()
    for rows in range(2, MOST + 1, 2):
        dear.learn("shape", rows, 0.010, mixed=False, beside=False)
        dear.learn("shape", rows, 0.020, mixed=True, beside=False)
    assert dear.beside("shape", 2, mixed=False, mixed_with=False) == MOST - 2
    assert dear.beside("shape", 2, mixed=False, mixed_with=True) == 0
    assert dear.beside("shape", 4, mixed=True, mixed_with=True) == MOST - 4


def test_now_and_then_a_call_goes_without_spare_rows_so_that_a_faster_machine_is_noticed() -> None:
    faster = room()
    for rows in (2, MOST):
        faster.learn("shape", rows, 0.040, mixed=False, beside=False)
    for _ in range(1000):
        more = faster.beside("shape", 2, mixed=False, mixed_with=False)
        faster.learn("shape", 2 + more, 0.002 * (2 + more) / 2, mixed=False, beside=more > 0)
    assert more == 0, "it became linear, though calls of all rows are no slower than before"


def test_memory_that_did_not_suffice_is_not_asked_for_again_soon() -> None:
    full = room()
    for rows in (2, 8):
        full.learn("shape", rows, 0.010, mixed=False, beside=False)
    assert full.beside("shape", 2, mixed=False, mixed_with=False) == 6
    full.refuse("shape", 8, mixed=False)
    assert full.beside("shape", 2, mixed=False, mixed_with=False) == 0


@pytest.mark.parametrize(("rows", "more"), [(2, 0), (3, 1), (5, 3), (6, 2), (17, 15)])
def test_padding_of_compiled_calls_is_filled_for_nothing(rows: int, more: int) -> None:
    assert room(padding=True).beside("shape", rows, mixed=False, mixed_with=True) == more


def test_no_spare_drawing_has_anything_compiled_that_nobody_else_asked_for() -> None:
    compiled = room(padding=True)
    compiled.learn("shape", 2, 0.003, mixed=False, beside=False)
    assert compiled.alone("shape", 2, mixed=False) == 2
    compiled.learn("shape", 13, 0.003, mixed=True, beside=False)
    assert compiled.alone("shape", 2, mixed=True) == 16
    assert compiled.beside("shape", 2, mixed=False, mixed_with=True) == 14
