"""What operators see of the registry on Prometheus, beside the RPC metrics of the server kit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.common.clock import Clock
from terroir.common.errors import TerroirError
from terroir.registry.index.live import LiveIndex
from terroir.store.errors import StoreError


class RegistryMetrics:
    """Counts publishes, refusals and bytes."""

    def __init__(self, clock: Clock, registry: CollectorRegistry) -> None:
        self._clock = clock
        self._registry = registry
        self._published = Counter(
            "terroir_registry_versions_published", "Publish calls that ended in a version.", registry=registry
        )
        self._seconds = Histogram(
            "terroir_registry_publish_seconds",
            "Time from the header to the version, the upload included.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self._bytes = Counter(
            "terroir_registry_transfer_bytes", "Bytes of adapter files.", ["direction"], registry=registry
        )
        self._refused = Counter(
            "terroir_registry_publish_refusals", "Publish calls refused.", ["reason"], registry=registry
        )

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Time one publish and count how it ends; a cancelled one counts as neither."""
        begun = self._clock.monotonic()
        try:
            yield
        except (TerroirError, StoreError) as error:
            self._refused.labels(error.reason).inc()
            raise
        self._published.inc()
        self._seconds.observe(self._clock.monotonic() - begun)

    def received(self, count: int) -> None:
        """Count uploaded bytes."""
        self._bytes.labels("upload").inc(count)

    def sent(self, count: int) -> None:
        """Count downloaded bytes."""
        self._bytes.labels("download").inc(count)

    def watch_index(self, live: LiveIndex) -> None:
        """Show how much the index holds and how old it is, read at each scrape."""
        gauges = {
            "stale_seconds": ("Time since the index was last level with the store.", live.stale_seconds),
            "adapters": ("Adapters in the index.", lambda: live.index.counts()[0]),
            "journal_entry": ("Newest entry of the journal that was read.", lambda: live.follower.place()[0]),
            "pending_hints": ("Announced writes that were not seen yet.", lambda: len(live.follower.place()[1])),
        }
        for name, (text, read) in gauges.items():
            Gauge(f"terroir_registry_index_{name}", text, registry=self._registry).set_function(read)
