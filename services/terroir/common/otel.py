"""Spans as OpenTelemetry makes them. Imported where traces are wanted alone: see `terroir.common.tracing`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextvars import Token
from typing import Final, Protocol

import grpc
from opentelemetry import context, trace
from opentelemetry.context.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from terroir.common.tracing import Kind, Value, _current, reason_of
from terroir.common.version import code_version

_W3C: Final = TraceContextTextMapPropagator()
_HEADERS: Final = ("traceparent", "tracestate")
_PREFIX: Final = "/terroir."
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_SERVERS_FAULT: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that are errors of a server's span; the others are errors of the caller's alone (OpenTelemetry's rule)."""


class Destination(Protocol):
    """Who takes spans; see `Collector`."""

    @property
    def provider(self) -> trace.TracerProvider:
        """Makes them."""
        ...

    def close(self) -> None:
        """Deliver what waits, within bounded time."""
        ...


class Tracing:
    """Makes the spans of one server, one job, or the program that uses the client."""

    def __init__(self, destination: Destination | None) -> None:
        """None: the program's own tracer provider."""
        self._destination = destination
        provider = trace.get_tracer_provider() if destination is None else destination.provider
        self._tracer = provider.get_tracer("terroir", code_version())

    def close(self) -> None:
        """Deliver what waits, within bounded time; blocks."""
        if self._destination is not None:
            self._destination.close()

    def span(self, name: str, attributes: Mapping[str, Value]) -> OpenSpan:
        """See `tracing.span`."""
        return OpenSpan(self, self._tracer.start_span(name, attributes=_named(attributes)))

    def following(self, traceparent: str, name: str, kind: Kind, attributes: Mapping[str, Value]) -> OpenSpan:
        """See `tracing.following`."""
        parent = _W3C.extract({"traceparent": traceparent}, Context())
        return OpenSpan(self, self._tracer.start_span(name, parent, _KINDS[kind], attributes=_named(attributes)))

    def record(self, name: str, begun: float, ended: float, attributes: Mapping[str, Value], failed: str) -> None:
        """See `tracing.record`."""
        now, reading = time.time_ns(), time.monotonic()
        # The two clocks are not read at one instant: a part must not seem to begin before its whole.
        least = getattr(trace.get_current_span(), "start_time", None) or 0
        start, end = (max(least, now - int((reading - at) * 1e9)) for at in (begun, ended))
        made = self._tracer.start_span(name, attributes=_named(attributes), start_time=start)
        if failed:
            _fail(made, failed)
        made.end(max(start, end))

    def begin_call(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None, request_id: str
    ) -> ServedCall:
        """A call that this server answers is current from now on, in the caller's trace if it has one."""
        headers = {key: value for key, value in metadata or () if key in _HEADERS and isinstance(value, str)}
        parent = _W3C.extract(headers, Context())
        attributes = {**_rpc(method), "terroir.request_id": request_id}
        made = self._tracer.start_span(method[1:], parent, SpanKind.SERVER, attributes=attributes)
        # Never detached: each call has a task, and so a context, of its own; and a stream that its reader gave up is
        # closed in another one, where OpenTelemetry can't detach and says so on standard error.
        context.attach(trace.set_span_in_context(made, parent))
        _current.set(self)
        return ServedCall(made)

    def begin_request(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> SentCall | None:
        """A call that is about to be sent; None for one that is not traced.

        Those are calls of other contracts, such as health's, ones that bring a `traceparent` of their own, and what a
        server does by itself: its watches last as long as it does.
        """
        by_itself = self._destination is not None and not trace.get_current_span().get_span_context().is_valid
        if by_itself or not method.startswith(_PREFIX) or any(key == "traceparent" for key, _ in metadata):
            return None
        made = self._tracer.start_span(method[1:], kind=SpanKind.CLIENT, attributes=_rpc(method))
        return SentCall(made, _headers(trace.set_span_in_context(made)))

    def fail_current(self, reason: str) -> None:
        """See `tracing.fail_current`."""
        _fail(trace.get_current_span(), reason)

    def headers(self) -> dict[str, str]:
        """The current span for whoever goes on with its trace; empty without one."""
        return _headers(context.get_current())

    def ids(self) -> dict[str, str]:
        """See `tracing.trace_ids`."""
        about = trace.get_current_span().get_span_context()
        if not about.is_valid:
            return {}
        return {"trace_id": trace.format_trace_id(about.trace_id), "span_id": trace.format_span_id(about.span_id)}


class OpenSpan:
    """A span that is current between `with` and its end; begins when it is made."""

    def __init__(self, tracing: Tracing, made: Span) -> None:
        self._tracing, self._made = tracing, made
        self._token: Token[Context] | None = None
        self._outer: Token[Tracing | None] | None = None

    def set(self, **attributes: Value) -> None:
        """See Span."""
        self._made.set_attributes(_named(attributes))

    def fail(self, reason: str) -> None:
        """See Span."""
        _fail(self._made, reason)

    def __enter__(self) -> OpenSpan:
        self._token = context.attach(trace.set_span_in_context(self._made))
        self._outer = _current.set(self._tracing)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace_back: object) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._made.set_attribute("terroir.cancelled", True)
        elif error is not None:
            _fail(self._made, reason_of(error))
        self._made.end()
        if self._token is not None and self._outer is not None:
            context.detach(self._token)
            _current.reset(self._outer)


class ServedCall:
    """The span of a call that this server answers."""

    def __init__(self, made: Span) -> None:
        self._made = made

    def end(self, code: str, reason: str = "") -> None:
        """It ended with a status code, by name, and for an error with the reason code."""
        self._made.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        if reason:
            self._made.set_attribute("terroir.reason", reason)
        if code in _SERVERS_FAULT:
            self._made.set_status(Status(StatusCode.ERROR, reason or code))
        self._made.end()


class SentCall:
    """The span of a call that was sent."""

    def __init__(self, made: Span, headers: Mapping[str, str]) -> None:
        self._made = made
        self.headers = tuple(headers.items())
        """Metadata that tells the server of it."""

    def end(self, code: grpc.StatusCode) -> None:
        """It ended with a status."""
        self._made.set_attribute("rpc.grpc.status_code", code.value[0])
        if code is not grpc.StatusCode.OK:
            self._made.set_status(Status(StatusCode.ERROR, code.name))
        self._made.end()


def _headers(of: Context) -> dict[str, str]:
    headers: dict[str, str] = {}
    _W3C.inject(headers, of)
    return headers


def _rpc(method: str) -> dict[str, str]:
    service, _, verb = method[1:].partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": verb}


def _named(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {f"terroir.{name}": value for name, value in attributes.items()}


def _fail(made: Span, reason: str) -> None:
    if not isinstance(made, NonRecordingSpan):
        made.set_attribute("error.type", reason)
        made.set_status(Status(StatusCode.ERROR, reason))
