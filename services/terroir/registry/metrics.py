"""What operators see of the registry on Prometheus, beside the RPC metrics of the server kit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.common.clock import Clock
from terroir.common.errors import TerroirError
from terroir.registry.index.live import LiveIndex
from terroir.registry.index.watching import MAX_WATCHERS
from terroir.store.errors import StoreError
from terroir.store.metrics import StoreMetrics


class RegistryMetrics:
    """Publishes, bytes, the index and its watchers, and the store."""

    def __init__(self, clock: Clock, registry: CollectorRegistry) -> None:
        self._clock = clock
        self.store = StoreMetrics(registry)
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
        self._stale = Gauge(
            "terroir_registry_index_stale_seconds",
            "Time since the index was last level with the store.",
            registry=registry,
        )
        self._adapters = Gauge("terroir_registry_index_adapters", "Adapters in the index.", registry=registry)
        self._versions = Gauge("terroir_registry_index_versions", "Versions in the index.", registry=registry)
        self._entry = Gauge(
            "terroir_registry_index_journal_entry", "Newest entry of the journal that was read.", registry=registry
        )
        self._hints = Gauge(
            "terroir_registry_index_pending_hints", "Announced writes that were not seen yet.", registry=registry
        )
        self._watchers = Gauge("terroir_registry_watchers", "Callers that watch for changes.", registry=registry)
        self._watchers_limit = Gauge(
            "terroir_registry_watchers_limit", "Callers that may watch for changes.", registry=registry
        )
        for direction in ("upload", "download"):  # so that a rate is 0, not absent, before the first byte
            self._bytes.labels(direction)

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
        """Show how much the index holds, how old it is and who watches it, read at each scrape."""
        self._stale.set_function(live.stale_seconds)
        self._adapters.set_function(lambda: live.index.counts()[0])
        self._versions.set_function(lambda: live.index.counts()[1])
        self._entry.set_function(lambda: live.follower.place()[0])
        self._hints.set_function(lambda: len(live.follower.place()[1]))
        self._watchers.set_function(lambda: live.follower.watchers)
        self._watchers_limit.set(MAX_WATCHERS)
