"""Logs and metrics of a service: JSON lines on standard error, Prometheus counters of its calls."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from structlog.typing import EventDict, WrappedLogger

from terroir.common.tracing import trace_ids

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


def configure_logging(service: str, level: str) -> None:
    """Log structured events as JSON lines to standard error.

    Each names the service, and in a call the request identifier and, where it is traced, trace and span.
    """

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        # Not a context variable: threads start without them.
        return {**event, "service": service, **trace_ids()}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_service,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("terroir").handlers = [_Plain()]


class _Plain(logging.Handler):
    """Passes on what parts that know of no structured log (the store) write to Python's own."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name)


def frames_of(error: BaseException) -> str:
    """Where an exception and its causes came from, and of which classes they are; without their texts."""
    found = []
    cause: BaseException | None = error
    while cause is not None:
        frames = "".join(traceback.format_list(traceback.extract_tb(cause.__traceback__)))
        found.append(f"{type(cause).__module__}.{type(cause).__qualname__}\n{frames}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "caused by ".join(found)


class RpcMetrics:
    """Counters of calls: how many by code, how long, how many run now."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled = Counter(
            "terroir_rpc_handled", "Calls that ended, by method and status code.", ("method", "code"), registry=registry
        )
        self._seconds = Histogram(
            "terroir_rpc_duration_seconds", "Time of calls, streams to their end.", ("method",), registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._running = Gauge("terroir_rpc_running", "Calls in progress.", ("method",), registry=registry)

    def of(self, method: str) -> MethodMetrics:
        """Those of one method."""
        return MethodMetrics(method, self._handled, self._seconds.labels(method), self._running.labels(method))


class MethodMetrics:
    """Counters of one method's calls."""

    def __init__(self, method: str, handled: Counter, seconds: Histogram, running: Gauge) -> None:
        self.seconds, self.running = seconds, running
        self._method, self._handled = method, handled

    def handled(self, code: str) -> None:
        """Count a call that ended."""
        self._handled.labels(self._method, code).inc()


class ServerMetrics:
    """What a server tells of itself: its version, its certificate, and files that could not be taken."""

    def __init__(self, registry: CollectorRegistry, service: str, version: str) -> None:
        Info("terroir_build", "Version of Terroir.", registry=registry).info({"version": version, "service": service})
        self.access_failures = Counter(
            "terroir_access_file_reload_failures", "Changed access files that were not taken.", registry=registry
        )
        self.tls_failures = Counter(
            "terroir_tls_reload_failures", "Looks at changed certificate files that were not taken.", registry=registry
        )
        self.handshake_failures = Counter(
            "terroir_tls_handshake_failures", "Connections whose TLS handshake failed.", registry=registry
        )
        self.lost_spans = Counter(
            "terroir_trace_spans_lost", "Spans that no collector took: it was away, or too slow.", registry=registry
        )
        self._registry = registry

    def watch_certificate(self, expires: Callable[[], float]) -> None:
        """Show when the certificate ends, in Unix seconds, read at each scrape."""
        Gauge(
            "terroir_tls_certificate_expiry_timestamp_seconds", "When the server's certificate ends.",
            registry=self._registry,
        ).set_function(expires)  # fmt: skip


def new_registry() -> CollectorRegistry:
    """A registry of its own for each server, with process and interpreter metrics; no process-wide state."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
