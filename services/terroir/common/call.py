"""What surrounds every call: request identifier, metrics, one log line, typed errors."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import structlog

from terroir.common import errors
from terroir.common.access.gate import Gate
from terroir.common.deserializing import all_well_formed, tolerant, well_formed
from terroir.common.grpc_errors import from_exception, to_status
from terroir.common.telemetry import RpcMetrics, frames_of
from terroir.store.deadline import set_deadline

REQUEST_ID: Final = "x-request-id"
_STOPPING_RETRY_SECONDS: Final = 1.0
_log = structlog.get_logger()
_Handler = Callable[..., Any]

if TYPE_CHECKING:  # generic in the stubs alone
    from terroir.common.otel import ServedCall, Tracing

    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def remaining_seconds(context: _Context) -> float | None:
    """Seconds until the caller's deadline; None without one. Raises DeadlineExceeded once it has passed."""
    left: float | None = context.time_remaining()
    if left is not None and left <= 0:
        raise errors.DeadlineExceeded("the deadline of this call has passed; give it more time")
    return left


class RunningCalls:
    """Counts calls whose handlers have not returned, cancelled ones that still clean up among them."""

    def __init__(self) -> None:
        self.count = 0
        self.closed = False
        """Whether new calls are refused, because the server is stopping."""
        self._none = asyncio.Event()
        self._none.set()

    def begin(self) -> None:
        """A handler starts."""
        self.count += 1
        self._none.clear()

    def end(self) -> None:
        """A handler has returned, and so has its `finally`."""
        self.count -= 1
        if not self.count:
            self._none.set()

    async def ended(self) -> None:
        """Wait until no handler runs."""
        await self._none.wait()


class CallInterceptor(_Interceptor):
    """Wraps all four kinds of handlers."""

    def __init__(self, metrics: RpcMetrics, running: RunningCalls, gate: Gate, tracing: Tracing | None = None) -> None:
        self._metrics = metrics
        self._running = running
        self._gate = gate
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_MethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> _MethodHandler:
        """Replace the method's handler by a wrapped one of the same kind; health and reflection stay as they are."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/terroir."):
            return handler
        given = str(dict(details.invocation_metadata or ()).get(REQUEST_ID, ""))
        request_id = given if 0 < len(given) <= 128 else str(uuid.uuid4())
        call = _Call(
            details.method, request_id, self._metrics, self._running, self._gate, handler.request_streaming,
            self._tracing,
        )  # fmt: skip
        inner: _Handler | None
        if inner := handler.unary_unary or handler.stream_unary:
            make = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.stream_unary_rpc_method_handler
            return make(call.answering(inner), tolerant(handler.request_deserializer), handler.response_serializer)
        inner = handler.unary_stream or handler.stream_stream
        assert inner is not None, "a handler is of one of the four kinds"
        make = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
        return make(call.streaming(inner), tolerant(handler.request_deserializer), handler.response_serializer)


class _Call:
    def __init__(
        self,
        method: str,
        request_id: str,
        metrics: RpcMetrics,
        running: RunningCalls,
        gate: Gate,
        request_streaming: bool,
        tracing: Tracing | None,
    ) -> None:
        self._method, self._request_id, self._metrics, self._running = method, request_id, metrics, running
        self._gate, self._request_streaming, self._tracing = gate, request_streaming, tracing

    async def _admitted(self, request: Any, context: _Context) -> Any:
        """The request, once its caller may make it; raises what refuses them."""
        principal = await self._gate.admit(self._method, context)
        if self._request_streaming:
            messages = all_well_formed(request)
            return messages if principal.regions is None else self._gate.checked(principal, self._method, messages)
        well_formed(request)
        if principal.regions is not None:
            await self._gate.check(principal, self._method, request)
        return request

    def _around(self, context: _Context) -> _Surround:
        return _Surround(self._method, self._request_id, self._metrics, self._running, context, self._tracing)

    async def _refuse_if_stopping(self, context: _Context) -> None:
        # Not counted as running, or callers who try again and again would keep the server from ending.
        if self._running.closed:
            stopping = errors.Unavailable(
                "this server is stopping; try again: another replica, or its successor, will answer",
                reason="SERVICE_STOPPING",
                retry_after_seconds=_STOPPING_RETRY_SECONDS,
            )
            self._metrics.handled.labels(self._method, stopping.code.value).inc()
            await context.abort_with_status(to_status(stopping, self._request_id))  # type: ignore[attr-defined]  # not in the stubs

    def answering(self, inner: _Handler) -> _Handler:
        """Wrap a handler that returns one message."""

        async def handle(request: Any, context: _Context) -> Any:
            await self._refuse_if_stopping(context)
            async with self._around(context):
                return await inner(await self._admitted(request, context), context)

        return handle

    def streaming(self, inner: _Handler) -> _Handler:
        """Wrap a handler that is an asynchronous generator of messages."""

        async def handle(request: Any, context: _Context) -> AsyncIterator[Any]:
            await self._refuse_if_stopping(context)
            async with self._around(context):
                admitted = await self._admitted(request, context)
                async with aclosing(inner(admitted, context)) as messages:
                    async for message in messages:
                        yield message

        return handle


class _Surround:
    def __init__(
        self, method: str, request_id: str, metrics: RpcMetrics, running: RunningCalls, context: _Context,
        tracing: Tracing | None,
    ) -> None:  # fmt: skip
        self._method, self._request_id, self._metrics, self._context = method, request_id, metrics, context
        self._running, self._tracing = running, tracing
        self._span: ServedCall | None = None
        self._since = 0.0

    async def __aenter__(self) -> None:
        self._since = time.monotonic()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        set_deadline(self._context.time_remaining())
        await self._context.send_initial_metadata(((REQUEST_ID, self._request_id),))
        if self._tracing is not None:  # not before that: a caller who is gone by then would leave it open
            self._span = self._tracing.begin_call(self._method, self._context.invocation_metadata(), self._request_id)
        self._metrics.running.labels(self._method).inc()
        self._running.begin()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        seconds = time.monotonic() - self._since
        self._metrics.running.labels(self._method).dec()
        self._running.end()
        self._metrics.seconds.labels(self._method).observe(seconds)
        if error is None:
            self._finish("OK", seconds)
            return False
        if isinstance(error, asyncio.CancelledError | GeneratorExit | grpc.aio.AbortError):
            self._finish("CANCELLED", seconds)
            return False
        seen = from_exception(error, self._request_id)
        if isinstance(seen, errors.Internal) and seen is not error:
            # Without the texts of exceptions that nobody foresaw: they may quote prompts, captions or credentials.
            _log.error("call failed", method=self._method, exception=frames_of(error))
        self._finish(seen.code.value, seconds, reason=seen.reason)
        await self._context.abort_with_status(to_status(seen, self._request_id))  # type: ignore[attr-defined]  # not in the stubs
        return False

    def _finish(self, code: str, seconds: float, **fields: str) -> None:
        self._metrics.handled.labels(self._method, code).inc()
        _log.info("call", method=self._method, code=code, seconds=round(seconds, 4), **fields)
        if self._span is not None:
            self._span.end(code, **fields)
