"""Prometheus metrics of the dataset service."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.dataset.model import Finding, Gate, Verdict
from terroir.store.metrics import StoreMetrics


class DatasetMetrics:
    """Imports, gates, captions, and the store; pass a registry of its own in tests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.store = StoreMetrics(registry)
        self._images = Counter(
            "terroir_dataset_images_imported", "Pictures newly imported, by verdict.", ["verdict"], registry=registry
        )
        self._findings = Counter(
            "terroir_dataset_findings",
            "What gates found in newly imported pictures, passed ones excepted.",
            ["gate"],
            registry=registry,
        )
        self._bytes = Counter(
            "terroir_dataset_received_bytes", "Picture bytes received over import streams.", registry=registry
        )
        self._imports = Gauge("terroir_dataset_imports_running", "Import streams that are open.", registry=registry)
        self._imports_limit = Gauge(
            "terroir_dataset_imports_limit", "Import streams that may be open.", registry=registry
        )
        self._seconds = Histogram(
            "terroir_dataset_caption_seconds",
            "Seconds that the tagger took for one batch of pictures, its start included.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        for verdict in Verdict:  # so that a rate is 0, not absent, before the first one
            self._images.labels(verdict.name.lower())
        for gate in Gate:
            self._findings.labels(gate.value)

    def watch_imports(self, running: Callable[[], int], limit: int) -> None:
        """Read the number of streams from where it is, at each scrape."""
        self._imports.set_function(running)
        self._imports_limit.set(limit)

    def imported(self, verdict: Verdict, findings: Iterable[Finding] = ()) -> None:
        """Count one picture that the dataset did not hold before, and what its gates found."""
        self._images.labels(verdict.name.lower()).inc()
        for finding in findings:
            if finding.verdict is not Verdict.PASS:
                self._findings.labels(finding.gate.value).inc()

    def received(self, size: int) -> None:
        """Count bytes of a chunk."""
        self._bytes.inc(size)

    def captioned(self, seconds: float) -> None:
        """Observe one batch of drafts."""
        self._seconds.observe(seconds)
