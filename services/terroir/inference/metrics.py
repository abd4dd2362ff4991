"""What operators see of inference on Prometheus, beside the RPC metrics of the server kit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.admission.admission import Admission
from terroir.inference.engine.messages import Finished, JobEvent, Stepped


class InferenceMetrics:
    """Queue, steps, adapters and caches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tiers = TierMetrics(registry)
        self._queue = Gauge("terroir_inference_queue_depth", "Requests that wait.", registry=registry)
        self._active = Gauge("terroir_inference_active_requests", "Requests that draw.", registry=registry)
        self._steps = Histogram(
            "terroir_inference_step_seconds",
            "Wall time of one denoiser call with its scheduler steps, by request that took part.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self._refusals = Counter(
            "terroir_inference_safety_refusals",
            "What the safety check did not let through, by stage.",
            ["stage"],
            registry=registry,
        )
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
            self.tiers.held("merged", event.merged_bytes)

    def refused(self, stage: str) -> None:
        """Count one refusal of the safety check, of a `prompt` or a `picture`."""
        self._refusals.labels(stage).inc()

    def engine_restarted(self) -> None:
        """Count one unexpected end of the engine."""
        self._restarts.inc()
