"""Channels that dial anew with changed certificates, while running calls go on over the old connections.

gRPC's channel credentials for Python hold what they were made of for ever (grpc.ssl_channel_credentials), so that a
channel which lives longer than its certificate could not reconnect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from terroir.common.errors import FailedPrecondition
from terroir.common.tls import Identity

_LOOK_SECONDS: Final = 1.0
_KEPT: Final = 2
"""Channels before the current one that are left open: calls of the longest streams run on them."""

Open = TypeVar("Open")


class _Rotation(Generic[Open]):
    """The channel to use, one for each identity that the files have held."""

    def __init__(self, read: Callable[[], Identity], dial: Callable[[Identity], Open]) -> None:
        self._read, self._dial = read, dial
        self._lock = threading.Lock()
        self._identity = read()
        self._looked = time.monotonic()
        self.opened: list[Open] = [dial(self._identity)]
        self.generation = 0

    def current(self) -> tuple[int, Open, list[Open]]:
        """Its number, the channel, and those to be closed now."""
        with self._lock:
            retired: list[Open] = []
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._looked = time.monotonic()
                try:
                    found = self._read()
                except FailedPrecondition:  # half-written files; the next look finds them whole
                    found = self._identity
                if found != self._identity:
                    self._identity = found
                    self.opened.append(self._dial(found))
                    self.generation += 1
                    retired, self.opened = self.opened[: -_KEPT - 1], self.opened[-_KEPT - 1 :]
            return self.generation, self.opened[-1], retired


class _Method:
    """A method of whichever channel is current."""

    def __init__(
        self, channel: RotatingChannel, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._channel, self._kind, self._arguments, self._options = channel, kind, arguments, options
        self._generation, self._bound = -1, None

    def _current(self) -> Any:
        generation, channel = self._channel.current()
        if self._bound is None or generation != self._generation:
            self._bound = getattr(channel, self._kind)(*self._arguments, **self._options)
            self._generation = generation
        return self._bound

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._current()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:  # with_call, future
        return getattr(self._current(), name)


class RotatingChannel:
    """Stands for a grpc.Channel or grpc.aio.Channel wherever stubs are made of it."""

    def __init__(self, read: Callable[[], Identity], dial: Callable[[Identity], Any]) -> None:
        """`read` tells the identity as its files are now; `dial` opens a channel with one."""
        self._rotation: _Rotation[Any] = _Rotation(read, dial)

    def current(self) -> tuple[int, Any]:
        """The channel of the newest files, and its number."""
        generation, channel, retired = self._rotation.current()
        for old in retired:
            old.close()
        return generation, channel

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _Method(self, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _Method(self, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _Method(self, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _Method(self, "stream_stream", arguments, options)

    def close(self) -> None:
        """Close every connection."""
        for channel in self._rotation.opened:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AioRotatingChannel(RotatingChannel):
    """The same for asyncio, where closing is awaited."""

    def current(self) -> tuple[int, Any]:
        """See RotatingChannel; what was retired is closed when it is collected."""
        generation, channel, _retired = self._rotation.current()
        return generation, channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._rotation.opened:
            await channel.close()
