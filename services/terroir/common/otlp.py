"""The way of spans to a collector: OTLP over gRPC, in batches, and never at the cost of those who make them."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from terroir.common.version import code_version

QUEUE_SPANS: Final = 2048
"""Most that wait for a collector; what comes then is lost. About 3 KB each."""
_BATCH_SPANS: Final = 512
_DELAY_SECONDS: Final = 1.0
_EXPORT_SECONDS: Final = 5.0
"""One batch is tried for so long."""
_CLOSE_SECONDS: Final = 3.0
_GIVE_UP_SECONDS: Final = 1.0
_CHATTY: Final = ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal")
"""Loggers of what `_Delivery` says once, as one line of our log."""
_log = structlog.get_logger()


class Collector:
    """One server's way to the collector, with a tracer provider of its own."""

    def __init__(self, endpoint: str, service: str, sample_ratio: float, lost: Callable[[int], None]) -> None:
        """`lost` hears how many spans were not delivered, on any thread."""
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(
            endpoint,
            timeout=_EXPORT_SECONDS,
            # A proxy set for the internet must not see what goes to the cluster's collector.
            channel_options=(("grpc.enable_http_proxy", 0),),  # type: ignore[arg-type]  # gRPC takes numbers too
        )
        self._processor = _Queue(_Delivery(self._exporter, endpoint, lost), lost)
        about = {
            "service.name": service,
            "service.namespace": "terroir",
            "service.version": code_version(),
            "service.instance.id": secrets.token_hex(8),
        }
        self.provider = TracerProvider(
            ParentBased(TraceIdRatioBased(sample_ratio)),
            Resource.create(about),
            shutdown_on_exit=False,
            id_generator=_Identifiers(),
        )
        self.provider.add_span_processor(self._processor)

    def close(self) -> None:
        """Deliver what waits; after three seconds what is left is lost."""
        ending = threading.Thread(target=self.provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(_CLOSE_SECONDS)
        if ending.is_alive():
            self._exporter.shutdown()  # ends the call that hangs, and all after it at once
            ending.join(_GIVE_UP_SECONDS)


class _Queue(BatchSpanProcessor):
    """Counts what finds no place: the SDK's own queue drops spans without telling a program."""

    def __init__(self, delivery: _Delivery, lost: Callable[[int], None]) -> None:
        super().__init__(delivery, QUEUE_SPANS, _DELAY_SECONDS * 1000, _BATCH_SPANS, _EXPORT_SECONDS * 1000)
        self._delivery, self._lost = delivery, lost

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._delivery.takes_one():
            super().on_end(span)
        else:
            self._lost(1)


class _Delivery(SpanExporter):
    """Says once that the collector takes nothing, and once that it does again."""

    def __init__(self, exporter: SpanExporter, endpoint: str, lost: Callable[[int], None]) -> None:
        self._exporter, self._endpoint, self._lost = exporter, endpoint, lost
        self._lock = threading.Lock()
        self._waiting = 0
        self._failing = False

    def takes_one(self) -> bool:
        """Whether one more span may wait for `export`."""
        with self._lock:
            room = self._waiting < QUEUE_SPANS
            self._waiting += room
            return room

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        with self._lock:
            self._waiting -= len(spans)
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            self._lost(len(spans))
        if failed is not self._failing:
            self._failing = failed
            if failed:
                _log.warning("traces are not delivered", collector=self._endpoint, spans=len(spans))
            else:
                _log.info("traces are delivered again", collector=self._endpoint)
        return result

    def shutdown(self) -> None:
        """See SpanExporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See SpanExporter."""
        return self._exporter.force_flush(timeout_millis)


class _Identifiers(IdGenerator):
    """Not of `random`, as OpenTelemetry's own are: whoever seeds that, as trainings do, would repeat identifiers."""

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        return secrets.randbits(128) or 1

    def is_trace_id_random(self) -> bool:
        return True
