"""What operators see of the adapters' tiers, of the registry's watch and of prefetching."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.common.clock import Clock, SystemClock
from terroir.inference.adapters.tiers import Tier
from terroir.inference.adapters.top_names import OTHER, TopNames

ADAPTER_LABELS: Final = 20
"""Adapters that have series of their own in each replica."""
_MOST_WATCHED: Final = ("ADAPTER_CORRUPT", "STORE_BLOB_CORRUPT", "REGISTRY_UNREACHABLE", "SIGNATURE_INVALID")
"""Reasons that alerts look for."""
_CACHES: Final = (Tier.DEVICE, Tier.HOST, Tier.DISK)


class TierMetrics:
    """Hits, bytes, loads and evictions by tier, and the adapters that are asked for most."""

    def __init__(self, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        self._queries = Counter(
            "terroir_inference_adapter_queries",
            "Adapters of requests that were looked for in a tier, because no faster one had them.",
            ["tier"],
            registry=registry,
        )
        self._hits = Counter(
            "terroir_inference_adapter_hits",
            "Adapters of requests, by the tier that they were found in.",
            ["tier"],
            registry=registry,
        )
        self._loads = Histogram(
            "terroir_inference_adapter_load_seconds",
            "Time to bring an adapter into host memory, by where it came from.",
            ["source"],
            buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 60),
            registry=registry,
        )
        self._failures = Counter(
            "terroir_inference_adapter_load_failures",
            "Adapters that could not be brought into host memory, by reason of the error.",
            ["reason"],
            registry=registry,
        )
        self._requests = Counter(
            "terroir_inference_adapter_requests",
            f"Requests that wore an adapter: the {ADAPTER_LABELS} most popular ones by name, all others as `{OTHER}`.",
            ["adapter"],
            registry=registry,
        )
        self._names = TopNames(ADAPTER_LABELS, clock or SystemClock(), self._requests.remove)
        self._bytes = Gauge("terroir_inference_cache_bytes", "Bytes in a cache.", ["tier"], registry=registry)
        self._budgets = Gauge(
            "terroir_inference_cache_budget_bytes", "Bytes that a cache may hold.", ["tier"], registry=registry
        )
        self._resident = Gauge(
            "terroir_inference_adapters_resident", "Adapters in a cache.", ["tier"], registry=registry
        )
        self._evictions = Counter(
            "terroir_inference_cache_evictions", "Adapters that left a cache.", ["tier"], registry=registry
        )
        self._damaged = Counter(
            "terroir_inference_disk_damaged", "Files of the disk cache that were not what they were.", registry=registry
        )
        self._device_puts = Counter(
            "terroir_inference_device_puts", "Adapters sent into device memory.", registry=registry
        )
        self._prefetches = Counter(
            "terroir_inference_prefetches",
            "Adapters wanted before a request asked, by why and by what came of it.",
            ["cause", "result"],
            registry=registry,
        )
        self._connected = Gauge(
            "terroir_inference_registry_watch_connected", "1 while the registry's watch runs.", registry=registry
        )
        self._changes = Counter(
            "terroir_inference_registry_changes", "Changes heard of, by kind.", ["kind"], registry=registry
        )
        self._remembered = Counter(
            "terroir_inference_remembered_lookups",
            "Names served from memory because the registry gave no answer.",
            registry=registry,
        )

        for tier in Tier:  # so that a rate is 0, not absent, before the first one
            self._hits.labels(tier)
            self._queries.labels(tier)
        for tier in _CACHES:
            self._bytes.labels(tier)
            self._evictions.labels(tier)
            self._resident.labels(tier)
        for reason in _MOST_WATCHED:
            self._failures.labels(reason)
        for tier in (Tier.DISK, Tier.REGISTRY):
            self._loads.labels(tier)

    def hit(self, tier: Tier) -> None:
        """Count one adapter of a request, and the tiers that did not have it."""
        self._hits.labels(tier).inc()
        for asked in Tier:  # fastest first
            self._queries.labels(asked).inc()
            if asked is tier:
                return

    def worn(self, version: str) -> None:
        """Count one request that wears `adapters/{id}/versions/{number}`."""
        self._requests.labels(self._names.label(version.partition("/versions/")[0])).inc()

    def loaded(self, source: Tier, seconds: float) -> None:
        """Count one adapter that came into host memory from disk or registry."""
        self._loads.labels(source).observe(seconds)

    def load_failed(self, reason: str) -> None:
        """Count one adapter that did not come."""
        self._failures.labels(reason).inc()

    def budget(self, tier: Tier, size_bytes: int) -> None:
        """Set what a cache may hold."""
        self._budgets.labels(tier).set(size_bytes)

    def held(self, tier: Tier, size_bytes: int, adapters: int) -> None:
        """Set what a cache holds."""
        self._bytes.labels(tier).set(size_bytes)
        self._resident.labels(tier).set(adapters)

    def merged(self, size_bytes: int) -> None:
        """Set the bytes of merged weights, which are of no adapter alone."""
        self._bytes.labels("merged").set(size_bytes)

    def evicted(self, tier: Tier) -> None:
        """Count one adapter that left a tier."""
        self._evictions.labels(tier).inc()

    def disk_damaged(self) -> None:
        """Count one file that is fetched again because its digest is wrong."""
        self._damaged.inc()

    def put_on_device(self) -> None:
        """Count one adapter that was sent to the device."""
        self._device_puts.inc()

    def prefetched(self, cause: str, result: str) -> None:
        """Count one prefetch that ended."""
        self._prefetches.labels(cause, result).inc()

    def watching(self, connected: bool) -> None:
        """Say whether the watch runs."""
        self._connected.set(int(connected))

    def heard(self, kind: str) -> None:
        """Count one change of the registry."""
        self._changes.labels(kind).inc()

    def remembered(self) -> None:
        """Count one name that was served from memory."""
        self._remembered.inc()
