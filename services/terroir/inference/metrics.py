"""What operators see of inference on Prometheus, beside the RPC metrics of the server kit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.inference.admission import Admission
from terroir.inference.engine.messages import Finished, JobEvent, Stepped


class InferenceMetrics:
    """Queue, steps, adapters and caches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queue = Gauge("terroir_inference_queue_depth", "Requests that wait.", registry=registry)
        self._active = Gauge("terroir_inference_active_requests", "Requests that draw.", registry=registry)
        self._steps = Histogram(
            "terroir_inference_step_seconds",
            "Wall time of one denoiser call with its scheduler steps, by request that took part.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self._loads = Histogram(
            "terroir_inference_adapter_load_seconds",
            "Time to bring an adapter into host memory, by where it came from.",
            ["source"],
            buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 60),
            registry=registry,
        )
        self._cache = Gauge("terroir_inference_cache_bytes", "Bytes in a cache.", ["tier"], registry=registry)
        self._restarts = Counter(
            "terroir_inference_engine_restarts", "Ends of the engine that nobody asked for.", registry=registry
        )

    def watch(self, admission: Admission) -> None:
        """Read queue and active requests from where they are, at each scrape."""
        self._queue.set_function(lambda: admission.waiting)
        self._active.set_function(lambda: admission.active)

    def job_event(self, event: JobEvent) -> None:
        """Take what an engine's event tells."""
        if isinstance(event, Stepped):
            self._steps.observe(event.tick.seconds)
        elif isinstance(event, Finished):
            self._cache.labels("merged").set(event.merged_bytes)

    def loaded(self, source: str, seconds: float) -> None:
        """Count one adapter that came into host memory from `disk` or `registry`."""
        self._loads.labels(source).observe(seconds)

    def host_bytes(self, size: int) -> None:
        """Bytes of adapters in host memory."""
        self._cache.labels("host").set(size)

    def engine_restarted(self) -> None:
        """Count one unexpected end of the engine."""
        self._restarts.inc()
