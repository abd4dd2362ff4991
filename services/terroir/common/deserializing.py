"""Bytes that are no message of the contract are the caller's mistake, and named as such.

grpcio answers them with INTERNAL, as if the server had failed: here the deserializer never raises, and the call does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from terroir.common.errors import InvalidArgument


class _Malformed:
    """Stands for a message that could not be read."""


_MALFORMED = _Malformed()


def tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer that marks what it cannot read."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return read


def well_formed(message: Any) -> Any:
    """The message; raises InvalidArgument (MESSAGE_MALFORMED) if it could not be read."""
    if message is _MALFORMED:
        raise InvalidArgument(
            "the request is no message of this method; generate the caller's stubs from the server's contract",
            reason="MESSAGE_MALFORMED",
        )
    return message


async def all_well_formed(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The messages of a request stream, up to the first that could not be read."""
    async for message in messages:
        yield well_formed(message)
