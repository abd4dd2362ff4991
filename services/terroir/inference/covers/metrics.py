"""What operators see of covers on Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.inference.covers.ladder import RungKind


class CoverMetrics:
    """Answers by rung, staleness, fills and what they cost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "terroir_inference_covers_answered", "Contents answered, by the rung that did.", ["rung"], registry=registry
        )
        self._stale = Histogram(
            "terroir_inference_covers_stale_seconds",
            "Age of what was stale among the answers, since it became so.",
            buckets=(1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400),
            registry=registry,
        )
        self._memory = Gauge(
            "terroir_inference_covers_memory_bytes", "Bytes of sets and files in memory.", registry=registry
        )
        self._misses = Counter(
            "terroir_inference_covers_store_misses", "Answers for which the store came too late or not at all.",
            registry=registry,
        )  # fmt: skip
        self._holes = Counter(
            "terroir_inference_covers_holes", "Sets whose files were gone or damaged.", registry=registry
        )
        self._fills = Counter(
            "terroir_inference_cover_fills", "Sets that were to be drawn, by what became of them.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self._lag = Histogram(
            "terroir_inference_cover_fill_lag_seconds",
            "From the first caller who missed a set to the set.",
            buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
            registry=registry,
        )
        self._waiting = Gauge(
            "terroir_inference_cover_fills_waiting", "Sets that callers missed and that wait to be drawn.",
            registry=registry,
        )  # fmt: skip
        self._dropped = Counter(
            "terroir_inference_cover_fills_dropped", "Sets that callers missed while too many waited.",
            registry=registry,
        )  # fmt: skip
        for kind in RungKind:  # so that a rate is 0, not absent, before the first one
            self._answers.labels(kind.value)
        for outcome in ("drawn", "kept", "failed"):
            self._fills.labels(outcome)

    def watch(self, used_bytes: Callable[[], int]) -> None:
        """Read the memory from where it is, at each scrape."""
        self._memory.set_function(used_bytes)

    def watch_fills(self, waiting: Callable[[], int]) -> None:
        """Likewise the queue of fills."""
        self._waiting.set_function(waiting)

    def answered(self, contents: Mapping[RungKind, int]) -> None:
        """Count a call's contents by what answered them."""
        for kind, count in contents.items():
            self._answers.labels(kind.value).inc(count)

    def stale(self, seconds: Iterable[float]) -> None:
        """Take the ages of a call's stale covers."""
        for age in seconds:
            self._stale.observe(max(0.0, age))

    def store_missed(self) -> None:
        """Count an answer that the store had no part in."""
        self._misses.inc()

    def hole(self) -> None:
        """Count a set that names what is not there."""
        self._holes.inc()

    def filled(self, outcome: str, lag_seconds: float | None = None) -> None:
        """Count what became of a set: `drawn`, `kept` or `failed`."""
        self._fills.labels(outcome).inc()
        if lag_seconds is not None:
            self._lag.observe(lag_seconds)

    def dropped(self) -> None:
        """Count a miss that could not be queued."""
        self._dropped.inc()
