"""Watchers that are slow, many, or hold strange tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.registry.errors import WatchersExhausted, WatcherTooSlow, WatchTokenInvalid
from terroir.registry.index import watching
from terroir.registry.index.watch_token import WatchPosition
from terroir.registry.metrics import RegistryMetrics
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.index_kit import Replica


def test_a_watcher_that_takes_nothing_gets_what_fits_then_an_error_and_misses_nothing_by_resuming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "MAX_BUFFERED", 3)
    replica = Replica(MemoryStore())
    watcher = replica.watch()
    for number in range(5):
        replica.publish(f"style-{number}")
    assert watcher.take() == [f"adapters/style-{number}/versions/1" for number in range(3)]
    replica.publish("style-5")  # there is room again, but its token would be past what was dropped
    with pytest.raises(WatcherTooSlow, match="resume_token"):
        watcher.take()
    replica.live.refresh()
    told = replica.watch(watcher.token).take()
    assert {f"adapters/style-{number}/versions/1" for number in (3, 4, 5)} <= set(told)


def test_a_slow_watcher_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_BUFFERED", 1)
    replica = Replica(MemoryStore())
    replica.watch()
    quick = replica.watch()
    for number in range(3):
        replica.publish(f"style-{number}")
        assert quick.take()[-1] == f"adapters/style-{number}/versions/1"


def test_watchers_beyond_the_limit_are_refused_until_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_WATCHERS", 1)
    replica = Replica(MemoryStore())
    first = replica.watch()
    with pytest.raises(WatchersExhausted, match="another"):
        replica.watch()
    first.leave()
    replica.watch()


@given(st.integers(0, 10**6), st.sets(st.integers(1, 10**6), max_size=300))
def test_a_token_means_the_place_that_it_was_made_of_or_one_before_it(number: int, pending: set[int]) -> None:
    place = WatchPosition.of(number, {each for each in pending if each <= number})
    assert WatchPosition.parse(place.token()) == place
    assert place.number <= number


@given(st.text(max_size=60) | st.from_regex(r"j[0-9.]{0,60}", fullmatch=True))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        place = WatchPosition.parse(text)
    except WatchTokenInvalid:
        return
    assert all(0 < each <= place.number for each in place.pending)


def test_operators_see_how_old_and_how_large_the_index_is() -> None:
    clock, registry = FixedClock(), CollectorRegistry()
    replica = Replica(MemoryStore(), clock)
    RegistryMetrics(clock, registry).watch_index(replica.live)
    replica.publish("jiangnan")
    replica.journal.announce("adapters/ghost", "never")
    replica.live.refresh()
    clock.advance(3)
    seen = {name: registry.get_sample_value(f"terroir_registry_index_{name}") for name in
            ("stale_seconds", "adapters", "journal_entry", "pending_hints")}  # fmt: skip
    assert seen == {"stale_seconds": 3, "adapters": 1, "journal_entry": 2, "pending_hints": 1}
