"""What operators see of a service's object store on Prometheus."""

from __future__ import annotations

import time
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.store.interface import ObjectStore
from terroir.store.observer import Operation, observe

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class StoreMetrics:
    """Implements StoreObserver. obstore repeats failed requests by itself: that shows in their time alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "terroir_store_request_seconds",
            "Time of requests to the object store, repeats by the driver included.",
            ["operation"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._errors = Counter(
            "terroir_store_errors",
            "Requests that the object store gave no answer to, by reason.",
            ["operation", "reason"],
            registry=registry,
        )
        self._damaged = Counter(
            "terroir_store_damaged_objects",
            "Objects read whose bytes are not those that were written.",
            registry=registry,
        )
        self._answer = Gauge(
            "terroir_store_last_answer_timestamp_seconds", "When the object store last answered.", registry=registry
        )
        # Bound once: looking a label up takes longer than the rest, and the registry asks five times a second.
        self._seconds = {operation: seconds.labels(operation) for operation in get_args(Operation)}

    def watch(self, store: ObjectStore) -> None:
        """Count this store's requests from now on."""
        observe(store, self)

    def answered(self, operation: Operation, seconds: float) -> None:
        """See StoreObserver."""
        self._seconds[operation].observe(seconds)
        self._answer.set(time.time())

    def failed(self, operation: Operation, reason: str, seconds: float) -> None:
        """See StoreObserver."""
        self._seconds[operation].observe(seconds)
        self._errors.labels(operation, reason).inc()

    def damaged(self) -> None:
        """See StoreObserver."""
        self._damaged.inc()
