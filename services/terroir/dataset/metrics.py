"""Prometheus metrics of the dataset service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from terroir.dataset.model import Verdict


class DatasetMetrics:
    """Counters of imports and captions; pass a registry of its own in tests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._images = Counter(
            "terroir_dataset_images_imported", "Pictures newly imported, by verdict.", ["verdict"], registry=registry
        )
        self._bytes = Counter(
            "terroir_dataset_received_bytes", "Picture bytes received over import streams.", registry=registry
        )
        self._seconds = Histogram(
            "terroir_dataset_caption_seconds",
            "Seconds that the tagger took for one batch of pictures, its start included.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        for verdict in Verdict:
            self._images.labels(verdict.name.lower())

    def imported(self, verdict: Verdict) -> None:
        """Count one picture that the dataset did not hold before."""
        self._images.labels(verdict.name.lower()).inc()

    def received(self, size: int) -> None:
        """Count bytes of a chunk."""
        self._bytes.inc(size)

    def captioned(self, seconds: float) -> None:
        """Observe one batch of drafts."""
        self._seconds.observe(seconds)
