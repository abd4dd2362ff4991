"""Prometheus metrics of the training service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class TrainingMetrics:
    """Counters of jobs; pass a registry of its own in tests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._created = Counter(
            "terroir_training_jobs_created", "Requests that queued a job or found it queued.", registry=registry
        )

    def created(self) -> None:
        """Count a queued job."""
        self._created.inc()
