"""What surrounds every call: request identifier, metrics, one log line, typed errors."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import structlog

from terroir.common import errors
from terroir.common.access.gate import Gate
from terroir.common.deserializing import all_well_formed, tolerant, well_formed
from terroir.common.grpc_errors import from_exception, to_status
from terroir.common.telemetry import MethodMetrics, RpcMetrics, frames_of
from terroir.store.deadline import set_deadline

REQUEST_ID: Final = "x-request-id"
"""Metadata of a call, which its trailing metadata bring back; those of a stream do so at its beginning."""
_MAX_REQUEST_ID_CHARACTERS: Final = 128
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
        self._wrapped: dict[str, _MethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_MethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> _MethodHandler:
        """Replace the method's handler by a wrapped one of the same kind; health and reflection stay as they are."""
        wrapped = self._wrapped.get(details.method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/terroir."):
            return handler
        wrapped = self._wrapped[details.method] = self._wrap(details.method, handler)
        return wrapped

    def _wrap(self, name: str, handler: _MethodHandler) -> _MethodHandler:
        method = _Method(
            name, self._metrics.of(name), self._running, self._gate, handler.request_streaming, self._tracing
        )
        inner: _Handler | None
        if inner := handler.unary_unary or handler.stream_unary:
            make = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.stream_unary_rpc_method_handler
            return make(method.answering(inner), tolerant(handler.request_deserializer), handler.response_serializer)
        inner = handler.unary_stream or handler.stream_stream
        assert inner is not None, "a handler is of one of the four kinds"
        make = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
        return make(method.streaming(inner), tolerant(handler.request_deserializer), handler.response_serializer)


@dataclass(frozen=True)
class _Method:
    """What all calls of a method share."""

    name: str
    metrics: MethodMetrics
    running: RunningCalls
    gate: Gate
    request_streaming: bool
    tracing: Tracing | None

    def answering(self, inner: _Handler) -> _Handler:
        """Wrap a handler that returns one message."""

        async def handle(request: Any, context: _Context) -> Any:
            request_id = _request_id(context)
            await self._refuse_if_stopping(context, request_id)
            async with _Surround(self, request_id, context):
                return await inner(await self._admitted(request, context), context)

        return handle

    def streaming(self, inner: _Handler) -> _Handler:
        """Wrap a handler that is an asynchronous generator of messages."""

        async def handle(request: Any, context: _Context) -> AsyncIterator[Any]:
            request_id = _request_id(context)
            await self._refuse_if_stopping(context, request_id)
            # A stream may last for hours; a single message is not worth a write of its own for it.
            await context.send_initial_metadata(((REQUEST_ID, request_id),))
            async with _Surround(self, request_id, context):
                admitted = await self._admitted(request, context)
                async with aclosing(inner(admitted, context)) as messages:
                    async for message in messages:
                        yield message

        return handle

    async def _admitted(self, request: Any, context: _Context) -> Any:
        """The request, once its caller may make it; raises what refuses them."""
        principal = await self.gate.admit(self.name, context)
        if self.request_streaming:
            messages = all_well_formed(request)
            return messages if principal.regions is None else self.gate.checked(principal, self.name, messages)
        well_formed(request)
        if principal.regions is not None:
            await self.gate.check(principal, self.name, request)
        return request

    async def _refuse_if_stopping(self, context: _Context, request_id: str) -> None:
        # Not counted as running, or callers who try again and again would keep the server from ending.
        if self.running.closed:
            stopping = errors.Unavailable(
                "this server is stopping; try again: another replica, or its successor, will answer",
                reason="SERVICE_STOPPING",
                retry_after_seconds=_STOPPING_RETRY_SECONDS,
            )
            self.metrics.handled(stopping.code.value)
            await _abort(context, stopping, request_id)


class _Surround:
    def __init__(self, method: _Method, request_id: str, context: _Context) -> None:
        self._method, self._request_id, self._context = method, request_id, context
        self._span: ServedCall | None = None
        self._since = 0.0

    async def __aenter__(self) -> None:
        self._since = time.monotonic()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        set_deadline(self._context.time_remaining())
        self._context.set_trailing_metadata(((REQUEST_ID, self._request_id),))
        method = self._method
        if method.tracing is not None:
            self._span = method.tracing.begin_call(method.name, self._context.invocation_metadata(), self._request_id)
        method.metrics.running.inc()
        method.running.begin()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        seconds = time.monotonic() - self._since
        method = self._method
        method.metrics.running.dec()
        method.running.end()
        method.metrics.seconds.observe(seconds)
        if error is None:
            self._finish("OK", seconds)
            return False
        if isinstance(error, asyncio.CancelledError | GeneratorExit | grpc.aio.AbortError):
            self._finish("CANCELLED", seconds)
            return False
        seen = from_exception(error, self._request_id)
        if isinstance(seen, errors.Internal) and seen is not error:
            # Without the texts of exceptions that nobody foresaw: they may quote prompts, captions or credentials.
            _log.error("call failed", method=method.name, exception=frames_of(error))
        self._finish(seen.code.value, seconds, reason=seen.reason)
        await _abort(self._context, seen, self._request_id)
        return False

    def _finish(self, code: str, seconds: float, **fields: str) -> None:
        self._method.metrics.handled(code)
        _log.info("call", method=self._method.name, code=code, seconds=round(seconds, 4), **fields)
        if self._span is not None:
            self._span.end(code, **fields)


def _request_id(context: _Context) -> str:
    """The caller's, if it can be one, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and 0 < len(value) <= _MAX_REQUEST_ID_CHARACTERS:
            return str(value)
    return str(uuid.uuid4())


async def _abort(context: _Context, error: errors.TerroirError, request_id: str) -> None:
    status = to_status(error, request_id)
    await context.abort(status.code, status.details, (*status.trailing_metadata, (REQUEST_ID, request_id)))
