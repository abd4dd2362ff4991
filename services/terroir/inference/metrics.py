"""What operators see of inference on Prometheus, beside the RPC metrics of the server kit."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.admission.admission import Admission
from terroir.inference.engine.messages import Drawn, Failed, Finished, JobEvent, SpareTick, Stepped

_ENGINE_REASONS: Final = ("DEVICE_MEMORY_FULL", "DRAWING_FAILED", "DEADLINE_EXCEEDED")


class InferenceMetrics:
    """Engine, queue, steps, pictures, adapters and caches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tiers = TierMetrics(registry)
        self._ready = Gauge(
            "terroir_inference_engine_ready", "1 while the engine has its model and draws.", registry=registry
        )
        self._images = Counter("terroir_inference_images_generated", "Pictures drawn.", registry=registry)
        self._failures = Counter(
            "terroir_inference_engine_failures",
            "Requests that the engine began and could not finish, by reason.",
            ["reason"],
            registry=registry,
        )
        self._capacity = Gauge(
            "terroir_inference_queue_capacity", "Requests that may wait; more are refused.", registry=registry
        )
        self._queue = Gauge("terroir_inference_queue_depth", "Requests that wait.", registry=registry)
        self._active = Gauge("terroir_inference_active_requests", "Requests that draw.", registry=registry)
        self._steps = Histogram(
            "terroir_inference_step_seconds",
            "Wall time of one denoiser call with its scheduler steps, by request that took part.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self._spare_offered = Counter(
            "terroir_inference_spare_rows_offered",
            "Rows of denoiser calls that pictures nobody waits for could have had, summed over calls.",
            registry=registry,
        )
        self._spare_filled = Counter(
            "terroir_inference_spare_rows_filled",
            "Rows of denoiser calls that pictures nobody waits for had, summed over calls.",
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
        for stage in ("prompt", "picture"):  # so that a rate is 0, not absent, before the first one
            self._refusals.labels(stage)
        for reason in _ENGINE_REASONS:
            self._failures.labels(reason)

    def watch(self, admission: Admission) -> None:
        """Read queue and active requests from where they are, at each scrape."""
        self._capacity.set(admission.max_waiting)
        self._queue.set_function(lambda: admission.waiting)
        self._active.set_function(lambda: admission.active)

    def job_event(self, event: JobEvent) -> None:
        """Take what an engine's event tells."""
        if isinstance(event, Stepped):
            self._steps.observe(event.tick.seconds)
        elif isinstance(event, Finished):
            self.tiers.merged(event.merged_bytes)
        elif isinstance(event, Drawn):
            self._images.inc()
        elif isinstance(event, Failed):
            self._failures.labels(event.reason).inc()

    def spare_tick(self, tick: SpareTick) -> None:
        """Take what became of a tick's spare rows."""
        self._spare_offered.inc(tick.offered)
        self._spare_filled.inc(tick.filled)

    def refused(self, stage: str) -> None:
        """Count one refusal of the safety check, of a `prompt` or a `picture`."""
        self._refusals.labels(stage).inc()

    def engine_ready(self, ready: bool) -> None:
        """Say whether there is an engine that draws."""
        self._ready.set(int(ready))

    def engine_restarted(self) -> None:
        """Count one unexpected end of the engine."""
        self._restarts.inc()
