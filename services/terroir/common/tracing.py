"""Spans of the call that runs: what it does and for how long, followed from service to service (docs/tracing.md).

Without a collector's address nothing of OpenTelemetry is imported and nothing is made. Neither prompts nor pictures nor
credentials belong into a span: attributes are names, digests and numbers, and errors are told by their reason codes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self

from terroir.common.errors import InvalidArgument, TerroirError
from terroir.store.errors import StoreError

if TYPE_CHECKING:
    from terroir.common.otel import Tracing

Value = str | bool | int | float
"""Of an attribute; its name gets `terroir.` in front."""
Kind = Literal["internal", "producer", "consumer"]
_current: Final[ContextVar[Tracing | None]] = ContextVar("tracing", default=None)


class TraceSettings(Protocol):
    """What a service's settings say of tracing."""

    @property
    def otlp_endpoint(self) -> str:
        """`http://host:4317` of the collector; empty: no traces."""
        ...

    @property
    def trace_sample_ratio(self) -> float:
        """Share of the requests traced that come without a trace."""
        ...


class Span(Protocol):
    """Something that takes time."""

    def set(self, **attributes: Value) -> None:
        """Say more of it."""
        ...

    def fail(self, reason: str) -> None:
        """Say that it went wrong, by a reason code."""
        ...


class _NoSpan:
    def set(self, **attributes: Value) -> None:
        """Nobody asks."""

    def fail(self, reason: str) -> None:
        """Nobody asks."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_NO_SPAN: Final = _NoSpan()


def open_tracing(settings: TraceSettings, service: str, lost: Callable[[int], None]) -> Tracing | None:
    """Where the spans of `service` go; None if the settings name no collector. `lost` hears of undelivered ones.

    Raises InvalidArgument (INVALID_SETTING) for what is no address. To be closed.
    """
    endpoint = settings.otlp_endpoint
    if not endpoint:
        return None
    if not endpoint.startswith(("http://", "https://")) or "@" in endpoint:
        raise InvalidArgument(
            "otlp_endpoint is no collector's address: write http://host:4317, or https://host:4317 for TLS, without "
            "user or password (credentials go into OTEL_EXPORTER_OTLP_HEADERS)",
            reason="INVALID_SETTING",
        )
    from terroir.common.otel import Tracing
    from terroir.common.otlp import Collector

    return Tracing(Collector(endpoint, f"terroir-{service}", settings.trace_sample_ratio, lost))


def callers_tracing() -> Tracing | None:
    """That of the program which uses this library, if it has set a tracer provider of OpenTelemetry."""
    loaded = sys.modules.get("opentelemetry.trace")
    if loaded is None or isinstance(loaded.get_tracer_provider(), loaded.ProxyTracerProvider):
        return None  # or only some library has loaded it
    from terroir.common.otel import Tracing

    return Tracing(None)


def use_tracing(tracing: Tracing | None) -> None:
    """Let spans of this context go there; for the rest of a call, or of a process with one task."""
    _current.set(tracing)


def current_tracing() -> Tracing | None:
    """Where the spans of this context go."""
    return _current.get()


def tracing_on() -> bool:
    """Whether anybody asks for spans here."""
    return _current.get() is not None


def span(name: str, **attributes: Value) -> AbstractContextManager[Span]:
    """Time what happens inside, as a part of the call that runs; an exception that leaves it marks it failed.

    Never around a `yield`: whoever reads the generator would work inside the span too.
    """
    tracing = _current.get()
    return _NO_SPAN if tracing is None else tracing.span(name, attributes)


def record(name: str, begun: float, ended: float, *, failed: str = "", **attributes: Value) -> None:
    """Add a part that is over, between two readings of the monotonic clock; `failed` is a reason code."""
    tracing = _current.get()
    if tracing is not None:
        tracing.record(name, begun, ended, attributes, failed)


def following(
    tracing: Tracing | None, traceparent: str, name: str, kind: Kind, **attributes: Value
) -> AbstractContextManager[Span]:
    """A span that goes on with a trace from elsewhere, and is current inside; none without a trace to go on with."""
    if tracing is None or not traceparent:
        return _NO_SPAN
    return tracing.following(traceparent, name, kind, attributes)


def fail_current(reason: str) -> None:
    """Mark the current span failed, for errors that do not leave it as exceptions; `reason` is their code."""
    tracing = _current.get()
    if tracing is not None:
        tracing.fail_current(reason)


def current_traceparent() -> str:
    """The current span as W3C Trace Context writes it, for what goes on with its trace later; empty without one."""
    tracing = _current.get()
    return "" if tracing is None else tracing.headers().get("traceparent", "")


def trace_ids() -> Mapping[str, str]:
    """`trace_id` and `span_id` for a line of the log; empty outside of a trace."""
    tracing = _current.get()
    return {} if tracing is None else tracing.ids()


def reason_of(error: BaseException) -> str:
    """What a span tells of an exception; never its text, which may quote what a caller sent."""
    return error.reason if isinstance(error, TerroirError | StoreError) else type(error).__name__
