"""Channels to other services, and their errors as ours."""

from __future__ import annotations

from typing import Final

import grpc

from terroir.common.errors import Cancelled, TerroirError, Unavailable
from terroir.common.grpc_errors import from_rpc

_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""Streams carry at most 1 MiB a message; lists and headers stay far below this too."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Long streams with quiet phases (a watched job) must survive load balancers that forget idle connections.
    ("grpc.http2.max_pings_without_data", 0),
    # A service that comes back is found again within seconds; by default the pause between tries grows to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.enable_http_proxy", 0),
)


def channel(target: str) -> grpc.Channel:
    """A channel for blocking callers; connects lazily and again by itself."""
    return grpc.insecure_channel(target, options=_OPTIONS)


def aio_channel(target: str) -> grpc.aio.Channel:
    """A channel for asyncio callers."""
    return grpc.aio.insecure_channel(target, options=_OPTIONS)


def error_from_rpc(error: grpc.RpcError) -> TerroirError:
    """The TerroirError that the server raised; one that cannot be reached, or is stopping, is Unavailable."""
    restored = from_rpc(error)
    if isinstance(restored, Unavailable) and restored.reason == "UNAVAILABLE":
        return Unavailable(
            f"no answer from the service: {restored}. Is it running? Start everything with `terroir up`",
            reason="SERVICE_UNREACHABLE",
        )
    # A call that meets a stopping server after its last accepted one gets this bare status; callers' own cancellations
    # ("Locally cancelled by application!") and a servicer's Cancelled bring a text.
    if isinstance(restored, Cancelled) and str(restored) == restored.reason == "CANCELLED":
        return Unavailable(
            "the service ended this call without an answer, as one does that is stopping; try again",
            reason="SERVICE_STOPPING",
            retry_after_seconds=1.0,
        )
    return restored
