"""What operators see of admission on Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.inference.admission.priority import Priority

_REASONS = ("QUEUE_FULL", "DEADLINE_UNMEETABLE", "DEADLINE_EXCEEDED")


class Promise(StrEnum):
    """What became of a deadline that a caller gave."""

    KEPT = "kept"
    """The pictures were there in time."""
    BROKEN = "broken"
    """It passed while the request waited or was drawn."""
    DECLINED = "declined"
    """The request was refused, because others were before it; an idle server would have been in time."""
    IMPOSSIBLE = "impossible"
    """The request was refused, because no server like this one could be in time."""


class AdmissionMetrics:
    """Who was let in, who was refused and why, how long they took, and how good the predictions were."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._admitted = Counter(
            "terroir_inference_admitted_requests", "Requests whose turn came.", ["priority"], registry=registry
        )
        self._refused = Counter(
            "terroir_inference_refused_requests",
            "Requests refused before their turn, by reason of the error.",
            ["reason", "priority"],
            registry=registry,
        )
        self._queued = Histogram(
            "terroir_inference_queue_seconds",
            "Time from arrival to the turn, loads of adapters included.",
            ["priority"],
            buckets=(0.001, 0.01, 0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self._seconds = Histogram(
            "terroir_inference_request_seconds",
            "Time from arrival to the last picture, of requests that have them all.",
            ["priority"],
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
            registry=registry,
        )
        self._deadlines = Counter(
            "terroir_inference_deadlines", "Deadlines of requests, by what became of them.", ["result"],
            registry=registry,
        )  # fmt: skip
        self._prediction = Histogram(
            "terroir_inference_prediction_ratio",
            "Seconds until the pictures, as they were over as predicted at arrival; 1 is a right prediction.",
            buckets=(0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 10),
            registry=registry,
        )
        self._load = Counter(
            "terroir_inference_load_wait_seconds",
            "Time that requests needed for their adapters: `hidden` while others had the turn anyway, or `shown`.",
            ["kind"],
            registry=registry,
        )
        self._jobs = Gauge(
            "terroir_inference_engine_jobs", "Jobs of the engine whose events somebody waits for.", registry=registry
        )
        for priority in Priority:  # a rate needs the zero before the first one
            self._admitted.labels(priority.name)
            self._queued.labels(priority.name)
            self._seconds.labels(priority.name)
            for reason in _REASONS:
                self._refused.labels(reason, priority.name)
        for promise in Promise:
            self._deadlines.labels(promise)
        for kind in ("hidden", "shown"):
            self._load.labels(kind)

    def watch(self, jobs: Callable[[], int]) -> None:
        """Read the engine's jobs from where they are, at each scrape."""
        self._jobs.set_function(jobs)

    def admitted(self, priority: Priority, queue_seconds: float) -> None:
        """A request's turn came."""
        self._admitted.labels(priority.name).inc()
        self._queued.labels(priority.name).observe(queue_seconds)

    def refused(self, priority: Priority, reason: str) -> None:
        """A request was refused, on arrival or while it waited."""
        self._refused.labels(reason, priority.name).inc()

    def loaded(self, seconds: float, hidden: float) -> None:
        """A request's adapters were in host memory after so many seconds, of which so many were hidden."""
        self._load.labels("hidden").inc(hidden)
        self._load.labels("shown").inc(max(0.0, seconds - hidden))

    def drawn(self, priority: Priority, seconds: float) -> None:
        """A request has its pictures, so long after it came."""
        self._seconds.labels(priority.name).observe(seconds)

    def promised(self, promise: Promise) -> None:
        """A deadline was kept or not."""
        self._deadlines.labels(promise).inc()

    def predicted(self, seconds: float, actual: float) -> None:
        """A request has its pictures; predictions of nothing are left out."""
        if seconds > 0:
            self._prediction.observe(actual / seconds)
