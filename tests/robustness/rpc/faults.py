"""Faults of a call as the network makes them, injected on the caller's side.

The three modes are those of Ray's fault injection (rpc-fault-tolerance): a request that never arrives, an answer that
never comes back, and, by calling twice at once, a retry that meets its first try. A stream may also break after its
first message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import grpc


class Fault(Enum):
    """What happens to the next call."""

    NONE = "none"
    REQUEST_LOST = "request lost"
    RESPONSE_LOST = "response lost"
    STREAM_BROKEN = "stream broken"


class LostError(grpc.RpcError):
    """What a caller sees of all of them."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "the connection broke"

    def trailing_metadata(self) -> tuple[()]:
        return ()


class BrokenCall:
    """A stream that a caller may also cancel."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[Any]:
        return self._messages

    def __next__(self) -> Any:
        return next(self._messages)

    def cancel(self) -> bool:
        """There is nothing left to cancel."""
        return False


class Faults(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Does `fault` to every call until it is set to another."""

    def __init__(self) -> None:
        self.fault = Fault.NONE
        self.struck = 0

    def _answer(self, go_on: Callable[[], Any]) -> Any:
        if self.fault is Fault.NONE:
            return go_on()
        self.struck += 1
        if self.fault is Fault.RESPONSE_LOST:
            go_on().exception()  # the server has done everything by now; whether it refused is lost too
        raise LostError

    def _stream(self, go_on: Callable[[], Any]) -> Any:
        if self.fault is Fault.NONE:
            return go_on()
        self.struck += 1
        return BrokenCall(self._broken(go_on))

    def _broken(self, go_on: Callable[[], Any]) -> Iterator[Any]:
        if self.fault is Fault.STREAM_BROKEN:
            call = go_on()
            yield next(call)
            call.cancel()
        elif self.fault is Fault.RESPONSE_LOST:
            for _ in go_on():
                pass
        raise LostError

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._answer(lambda: continuation(details, request))

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._answer(lambda: continuation(details, requests))

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._stream(lambda: continuation(details, request))

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._stream(lambda: continuation(details, requests))
