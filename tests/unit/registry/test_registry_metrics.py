"""Metrics: a publish ends as a version, as a refusal with its reason, or as neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.registry.errors import BaseMismatch
from terroir.registry.metrics import RegistryMetrics
from terroir.store.errors import OperationConflict
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.index_kit import Replica

Read = Callable[..., float | None]


@pytest.fixture
def measured() -> tuple[RegistryMetrics, FixedClock, Read]:
    """Metrics, their clock, and a reader of samples."""
    registry, clock = CollectorRegistry(), FixedClock()
    return RegistryMetrics(clock, registry), clock, registry.get_sample_value


def test_a_version_counts_with_its_seconds(measured: tuple[RegistryMetrics, FixedClock, Read]) -> None:
    metrics, clock, read = measured
    with metrics.publishing():
        clock.advance(1.5)
    assert read("terroir_registry_versions_published_total") == 1
    assert read("terroir_registry_publish_seconds_sum") == 1.5


@pytest.mark.parametrize("error", [BaseMismatch("other base"), OperationConflict("other request", "key")])
def test_a_refusal_counts_under_its_reason(
    measured: tuple[RegistryMetrics, FixedClock, Read], error: BaseMismatch | OperationConflict
) -> None:
    metrics, _, read = measured
    with pytest.raises(type(error)), metrics.publishing():
        raise error
    assert read("terroir_registry_publish_refusals_total", {"reason": error.reason}) == 1
    assert read("terroir_registry_versions_published_total") == 0


def test_a_cancelled_publish_counts_as_neither(measured: tuple[RegistryMetrics, FixedClock, Read]) -> None:
    metrics, _, read = measured
    with pytest.raises(asyncio.CancelledError), metrics.publishing():
        raise asyncio.CancelledError
    assert read("terroir_registry_versions_published_total") == 0
    assert read("terroir_registry_publish_seconds_count") == 0


def test_bytes_count_by_direction(measured: tuple[RegistryMetrics, FixedClock, Read]) -> None:
    metrics, _, read = measured
    metrics.received(10)
    metrics.sent(3)
    metrics.sent(4)
    assert read("terroir_registry_transfer_bytes_total", {"direction": "upload"}) == 10
    assert read("terroir_registry_transfer_bytes_total", {"direction": "download"}) == 7


def test_watchers_and_versions_are_counted_as_they_are() -> None:
    registry = CollectorRegistry()
    replica = Replica(MemoryStore(), FixedClock())
    RegistryMetrics(FixedClock(), registry).watch_index(replica.live)
    replica.publish("jiangnan")
    subscription, *_ = replica.live.follower.subscribe("", lambda: None)
    seen = [registry.get_sample_value(f"terroir_registry_{name}") for name in ("watchers", "index_versions")]
    replica.live.follower.unsubscribe(subscription)
    assert (seen, registry.get_sample_value("terroir_registry_watchers")) == ([1, 1], 0)
