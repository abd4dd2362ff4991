"""Adapters are user-made: ten thousand of them make no more series than a handful."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from terroir.common.clock import FixedClock
from terroir.inference.adapters.tier_metrics import ADAPTER_LABELS, TierMetrics
from terroir.inference.adapters.top_names import MOST_LABELS, OTHER, TopNames


def series(registry: CollectorRegistry) -> dict[str, float]:
    """Requests by the label of their adapter."""
    return {
        sample.labels["adapter"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "terroir_inference_adapter_requests_total"
    }


def lines(registry: CollectorRegistry) -> int:
    """Samples of a scrape."""
    return sum(not line.startswith(b"#") for line in generate_latest(registry).splitlines())


def test_ten_thousand_adapters_make_no_more_series() -> None:
    registry, clock = CollectorRegistry(), FixedClock()
    metrics = TierMetrics(registry, clock)
    few = lines(registry)
    dice = random.Random(1)
    order = [*range(10_000), *(dice.randrange(10_000) for _ in range(20_000))]
    for place, number in enumerate(order):
        metrics.worn(f"adapters/style-{number}/versions/{dice.randrange(1, 9)}")
        clock.advance(0.5)
        if place % 100 == 0:
            assert len(series(registry)) <= ADAPTER_LABELS + 1
    assert len(series(registry)) == ADAPTER_LABELS + 1
    assert lines(registry) - few == 2 * (ADAPTER_LABELS + 1)  # a counter and its time of creation each


def test_versions_of_one_adapter_are_one_series() -> None:
    registry = CollectorRegistry()
    metrics = TierMetrics(registry, FixedClock())
    for number in range(1, 50):
        metrics.worn(f"adapters/jiangnan/versions/{number}")
    assert series(registry) == {"adapters/jiangnan": 49}


def test_a_popular_newcomer_takes_the_place_of_the_least_popular() -> None:
    left: list[str] = []
    clock = FixedClock()
    names = TopNames(2, clock, left.append)
    for name in ("a", "a", "a", "a", "b", "b"):
        assert names.label(name) == name
    clock.advance(61)
    assert [names.label("c") for _ in range(4)] == [OTHER, OTHER, OTHER, "c"]
    assert left == ["b"] and names.label("b") == OTHER


def test_names_as_popular_as_each_other_do_not_take_turns() -> None:
    left: list[str] = []
    clock = FixedClock()
    names = TopNames(1, clock, left.append)
    for _ in range(100):
        clock.advance(61)
        assert (names.label("a"), names.label("b")) == ("a", OTHER)
    assert not left


def test_at_most_one_replacement_a_minute_whatever_is_asked_for() -> None:
    """Each makes a series that Prometheus keeps: a crowd of names must not fill its disk over a day either."""
    left: list[str] = []
    clock = FixedClock()
    names = TopNames(1, clock, left.append)
    for number in range(600):
        for _ in range(2 ** min(number, 8)):
            names.label(f"adapters/{number}")
        clock.advance(1)
    assert 1 <= len(left) <= 10


@pytest.mark.parametrize("most", [0, MOST_LABELS + 1])
def test_refuses_more_labels_than_prometheus_should_have(most: int) -> None:
    with pytest.raises(ValueError, match=f"{most} labels"):
        TopNames(most, FixedClock(), lambda _: None)
