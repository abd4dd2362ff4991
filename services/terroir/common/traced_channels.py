"""Calls to services as spans, with the trace in their metadata: interceptors for channels of both kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc

if TYPE_CHECKING:
    from terroir.common.otel import SentCall, Tracing

_Pairs = tuple[tuple[str, str | bytes], ...]


def traced(channel: grpc.Channel, tracing: Tracing) -> grpc.Channel:
    """The channel, its calls traced."""
    return grpc.intercept_channel(channel, _Blocking(tracing))


def aio_interceptors(tracing: Tracing) -> list[Any]:
    """For a channel of grpc.aio, which tells the four kinds of calls apart by the classes of interceptors."""
    return [_UnaryUnary(tracing), _UnaryStream(tracing), _StreamUnary(tracing), _StreamStream(tracing)]


class _Details(NamedTuple):
    """What grpc.ClientCallDetails promises."""

    method: str
    timeout: float | None
    metadata: _Pairs
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Blocking(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs alone
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]  # as above
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]  # as above
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]  # as above
):
    """Answers come through untouched: calls can be cancelled and read as without it."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def _intercept(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = tuple(details.metadata or ())
        span = self._tracing.begin_request(_text(details.method), metadata)
        if span is None:
            return continuation(details, request)
        sent = _Details(
            details.method, details.timeout, (*metadata, *span.headers), details.credentials,
            getattr(details, "wait_for_ready", None), getattr(details, "compression", None),
        )  # fmt: skip
        try:
            call = continuation(sent, request)
        except BaseException:
            span.end(grpc.StatusCode.UNKNOWN)
            raise
        call.add_done_callback(lambda ended: span.end(ended.code()))
        return call

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc."""
        return self._intercept(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc."""
        return self._intercept(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc."""
        return self._intercept(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc."""
        return self._intercept(continuation, client_call_details, request_iterator)


class _Aio:
    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._ending: Final[set[asyncio.Task[None]]] = set()

    async def _intercept(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = details.metadata or ()
        span = self._tracing.begin_request(_text(details.method), tuple(metadata))
        if span is None:
            return await continuation(details, request)
        try:
            call = await continuation(details._replace(metadata=_with(metadata, span.headers)), request)
        except BaseException:
            span.end(grpc.StatusCode.UNKNOWN)
            raise
        # The status is awaited beside the call: whoever made it may cancel, leave or read it as without us.
        task = asyncio.create_task(_end(span, call))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return call


class _UnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # as above
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc.aio."""
        return await self._intercept(continuation, client_call_details, request)


class _UnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # as above
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc.aio."""
        return await self._intercept(continuation, client_call_details, request)


class _StreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]  # as above
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc.aio."""
        return await self._intercept(continuation, client_call_details, request_iterator)


class _StreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]  # as above
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc.aio."""
        return await self._intercept(continuation, client_call_details, request_iterator)


async def _end(span: SentCall, call: Any) -> None:
    code = grpc.StatusCode.CANCELLED  # of a loop that ends before the call
    try:
        code = await call.code()
    finally:
        span.end(code)


def _with(metadata: Iterable[tuple[str, str | bytes]], headers: Iterable[tuple[str, str]]) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*metadata, *headers)


def _text(method: str | bytes) -> str:
    """Of grpc.aio it is bytes, whatever its types say (grpc/grpc#31092)."""
    return method.decode() if isinstance(method, bytes) else method
