from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.access.rate_limit import _PRINCIPALS, RateLimit
from terroir.common.clock import FixedClock
from terroir.common.errors import ResourceExhausted


def allowed(limit: RateLimit, principal: str, calls: int) -> int:
    passed = 0
    for _ in range(calls):
        try:
            limit.spend(principal)
        except ResourceExhausted:
            continue
        passed += 1
    return passed


def test_a_burst_passes_and_then_as_many_as_the_rate_gives() -> None:
    clock = FixedClock()
    limit = RateLimit(10, 5, clock)
    assert allowed(limit, "a", 20) == 5
    clock.advance(0.3)
    assert allowed(limit, "a", 20) == 3


def test_says_when_the_next_call_is_allowed() -> None:
    clock = FixedClock()
    limit = RateLimit(4, 1, clock)
    limit.spend("a")
    with pytest.raises(ResourceExhausted) as refused:
        limit.spend("a")
    assert refused.value.reason == "RATE_LIMITED" and refused.value.retry_after_seconds == pytest.approx(0.25)
    clock.advance(0.25)
    limit.spend("a")


def test_one_who_calls_too_often_takes_nothing_from_others() -> None:
    limit = RateLimit(1, 3, FixedClock())
    assert allowed(limit, "loud", 1000) == 3
    assert allowed(limit, "quiet", 3) == 3


def test_no_limit_at_nought() -> None:
    assert allowed(RateLimit(0, 1, FixedClock()), "a", 1000) == 1000


def test_memory_is_bounded_whoever_calls() -> None:
    limit = RateLimit(1, 1, FixedClock())
    for number in range(_PRINCIPALS + 500):
        limit.spend(f"p{number}")
    assert len(limit._buckets) == _PRINCIPALS


@given(st.lists(st.floats(0, 5), max_size=40), st.floats(0.5, 20), st.integers(1, 10))
def test_never_more_than_the_burst_and_the_rate_allow(pauses: list[float], rate: float, burst: int) -> None:
    clock = FixedClock()
    limit, passed = RateLimit(rate, burst, clock), 0
    for pause in pauses:
        clock.advance(pause)
        passed += allowed(limit, "a", 3)
    assert passed <= burst + rate * sum(pauses) + 1e-6
