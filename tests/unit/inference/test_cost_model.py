"""Costs of ticks and when a request's pictures will be there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.inference.admission.cost_model import DOUBT, MOST_AT_ONCE, Capacity, CostModel, Work
from terroir.inference.engine.messages import TickCost

CAPACITY = Capacity(requests=8, rows=64, batch_rows=32)
_SECONDS = st.floats(0, 10, allow_nan=False)
_SIZES = st.sampled_from([64 * 64, 128 * 128, 512 * 512])
_COSTS = st.lists(st.builds(TickCost, pixels=_SIZES, rows=st.integers(1, 64), seconds=_SECONDS), max_size=30)
_WORKS = st.builds(
    Work,
    width=st.sampled_from([64, 128, 512]),
    height=st.sampled_from([64, 128]),
    rows=st.integers(1, 32),
    steps=st.integers(0, 40),
    pictures=st.integers(1, 16),
)


def work(**fields: int) -> Work:
    return Work(**{"width": 64, "height": 64, "rows": 2, "steps": 10, "pictures": 1, **fields})


def linear(fixed: float = 0.01, each: float = 0.002) -> CostModel:
    """Knows ticks of 1, 8 and 32 rows at 64 × 64."""
    return CostModel(TickCost(64 * 64, rows, fixed + each * rows) for rows in (1, 8, 32))


@given(_COSTS, _SIZES, st.integers(1, 200), st.integers(1, 200))
def test_ticks_never_cost_less_than_nothing_and_never_less_for_more_rows(
    costs: list[TickCost], pixels: int, rows: int, more: int
) -> None:
    model = CostModel(costs)
    few, many = model.tick(pixels, rows), model.tick(pixels, rows + more)
    assert 0 <= few <= many * (1 + 1e-9) + 1e-12


@given(_COSTS, _WORKS, st.lists(_WORKS, max_size=8), st.lists(_WORKS, max_size=12), st.integers(1, 50))
def test_predictions_are_never_negative_and_grow_with_steps(
    costs: list[TickCost], new: Work, running: list[Work], waiting: list[Work], more: int
) -> None:
    model = CostModel(costs)
    few = model.predict(new, running, waiting, CAPACITY)
    longer = model.predict(replace(new, steps=new.steps + more), running, waiting, CAPACITY)
    assert 0 <= few <= longer * (1 + 1e-9) + 1e-12


@given(_COSTS, _WORKS, st.integers(1, 100))
def test_alone_a_request_with_more_rows_never_takes_less(costs: list[TickCost], new: Work, more: int) -> None:
    model = CostModel(costs)
    assert model.alone(new) <= model.alone(replace(new, rows=new.rows + more)) * (1 + 1e-9) + 1e-12


@given(_COSTS, _SIZES, st.integers(1, 64), st.floats(0.001, 10))
def test_a_constant_cost_is_learnt_whatever_was_known_before(
    costs: list[TickCost], pixels: int, rows: int, seconds: float
) -> None:
    model = CostModel(costs)
    for _ in range(120):
        model.learn(TickCost(pixels, rows, seconds))
    assert model.tick(pixels, rows) == pytest.approx(seconds, rel=0.01)


@given(st.integers(1, 100), st.floats(0, 1), st.floats(0.0001, 1))
def test_a_linear_cost_is_known_at_every_row_count_from_three_of_them(rows: int, fixed: float, each: float) -> None:
    assert linear(fixed, each).tick(64 * 64, rows) == pytest.approx(fixed + each * rows, rel=1e-6)


def test_an_unknown_size_costs_what_as_many_pixels_of_a_known_one_cost() -> None:
    model = linear()
    assert model.tick(128 * 128, 2) == pytest.approx(model.tick(64 * 64, 8))
    assert model.tick(32 * 32, 8) == pytest.approx(model.tick(64 * 64, 2))


def test_before_anything_is_known_everything_costs_nothing() -> None:
    assert CostModel().predict(work(), [work()], [work()], CAPACITY) == 0


def test_one_stall_of_the_machine_is_not_the_new_normal() -> None:
    model = linear()
    before = model.tick(64 * 64, 8)
    model.learn(TickCost(64 * 64, 8, 1000.0))
    assert model.tick(64 * 64, 8) <= before * MOST_AT_ONCE


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_nonsense_is_not_learnt(seconds: float) -> None:
    model = linear()
    before = model.tick(64 * 64, 8)
    model.learn(TickCost(64 * 64, 8, seconds))
    assert model.tick(64 * 64, 8) == before


def test_costs_that_refuse_everybody_are_trusted_less_and_less_until_a_tick_is_made() -> None:
    model = linear()
    for _ in range(20):
        model.doubt(64 * 64)
    assert model.trust(64 * 64) == pytest.approx(DOUBT**20)
    assert model.trust(128 * 128) == 1
    assert model.tick(64 * 64, 8) == pytest.approx(0.026), "what is predicted stays what it is"
    model.learn(TickCost(64 * 64, 8, 0.026))
    assert model.trust(64 * 64) == 1


def test_requests_of_one_size_share_ticks_and_sizes_take_turns() -> None:
    model = linear()
    tick = model.tick(64 * 64, 4)
    shared = model.predict(work(), [work()], [], CAPACITY)
    assert shared == pytest.approx(10 * tick)
    turns = model.predict(work(), [work(width=128, height=32)], [], CAPACITY)
    assert turns == pytest.approx(10 * 2 * model.tick(64 * 64, 2))


def test_sizes_share_the_devices_time_and_not_its_ticks() -> None:
    """Beside a size whose ticks cost four times as much, a request makes four steps to the other's one."""
    model = CostModel([TickCost(64 * 64, 2, 0.1), TickCost(128 * 128, 2, 0.4)])
    small, large = work(), work(width=128, height=128)
    assert model.predict(small, [large], [], CAPACITY) == pytest.approx(2 * 10 * 0.1)
    assert model.predict(large, [small], [], CAPACITY) == pytest.approx(2 * 10 * 0.1 + (10 - 2.5) * 0.4)


def test_rows_beyond_one_batch_take_another_tick() -> None:
    model = linear()
    two = model.predict(work(rows=20), [work(rows=20)], [], CAPACITY)
    assert two == pytest.approx(10 * (model.tick(64 * 64, 32) + model.tick(64 * 64, 8)))


def test_who_waits_enters_when_somebody_leaves() -> None:
    """One draws, two wait: one tick of 2 rows at a time, 4 + 6 + 10 steps."""
    one = Capacity(requests=1, rows=64, batch_rows=32)
    seconds = linear().predict(work(), [work(steps=4)], [work(steps=6)], one)
    assert seconds == pytest.approx(20 * linear().tick(64 * 64, 2))


def test_rows_limit_who_enters() -> None:
    narrow = Capacity(requests=8, rows=4, batch_rows=32)
    model = linear()
    seconds = model.predict(work(rows=4), [work(rows=2, steps=5)], [], narrow)
    assert seconds == pytest.approx(5 * model.tick(64 * 64, 2) + 10 * model.tick(64 * 64, 4))


def test_a_request_larger_than_everything_draws_alone() -> None:
    narrow = Capacity(requests=8, rows=4, batch_rows=4)
    model = linear()
    assert model.predict(work(rows=6), [], [], narrow) == pytest.approx(
        10 * (model.tick(64 * 64, 4) + model.tick(64 * 64, 2))
    )


def test_texts_and_decoding_are_learnt_and_scale_with_pictures_and_pixels() -> None:
    model = CostModel()
    model.learn_around(work(pictures=2), before=0.5, after=1.0)
    assert model.alone(work(pictures=2)) == pytest.approx(1.5)
    assert model.alone(work(pictures=4, width=128)) == pytest.approx(0.5 + 4 * 0.5 * 2)


def test_a_queue_of_ten_thousand_is_reckoned_in_no_time() -> None:
    """Played through one by one it would hold the event loop for seconds; the first hundred stand for the rest."""
    model = linear()
    hundred = model.predict(work(), [], [work()] * 128, CAPACITY)
    assert model.predict(work(), [], [work()] * 12_800, CAPACITY) == pytest.approx(100 * hundred, rel=0.01)
