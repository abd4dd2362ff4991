"""What every call of the client shares: deadlines, request identifiers, and errors that carry reasons."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import grpc

from terroir.common.grpc_client import error_from_rpc

UNARY_SECONDS: Final = 30.0
CHUNK_BYTES: Final = 512 * 1024

Message = TypeVar("Message")


def new_request_id() -> str:
    """An identifier that makes a retry of a mutating call safe."""
    return str(uuid.uuid4())


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn `grpc.RpcError` into the TerroirError that the server raised."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error


def typed_stream(stream: Iterable[Message]) -> Iterator[Message]:
    """Iterate over a server stream with `typed_errors`."""
    with typed_errors():
        yield from stream


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Offsets and parts of `data`, half a mebibyte each."""
    for offset in range(0, len(data), CHUNK_BYTES):
        yield offset, data[offset : offset + CHUNK_BYTES]
