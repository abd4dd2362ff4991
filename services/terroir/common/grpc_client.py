"""Channels to other services, and their errors as ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from terroir.common.credentials import CallerCredentials
from terroir.common.errors import Cancelled, TerroirError, Unavailable
from terroir.common.grpc_errors import from_rpc
from terroir.common.rotating_channel import AioRotatingChannel, RotatingChannel
from terroir.common.tls import Identity
from terroir.common.tracing import callers_tracing, current_tracing

if TYPE_CHECKING:
    from terroir.common.otel import Tracing

_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""Streams carry at most 1 MiB a message; lists and headers stay far below this too."""
_SERVICE_CONFIG: Final = {
    # Of a name with several addresses (a headless Service) every one is used, and one that is down is passed over.
    "loadBalancingConfig": [{"round_robin": {}}],
    # One that loads its model or drains says so by its health, and gets nothing.
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            # Drawing changes nothing, so that a replica which stops may be passed over without asking anybody.
            # What begins a preparation or invalidates is repeated by its caller, with the same request_id.
            "name": [
                {"service": "terroir.inference.v1.InferenceService"},
                *(
                    {"service": "terroir.inference.v1.CoverService", "method": method}
                    for method in ("GetCovers", "ReadCover", "GetPreparation", "ListPreparations", "WatchPreparation")
                ),
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
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
_PLAIN: Final = CallerCredentials()


def _options(
    target: str, credentials: CallerCredentials, *, own_connection: bool = False
) -> list[tuple[str, str | int]]:
    options: list[tuple[str, str | int]] = list(_OPTIONS)
    if own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    if target.startswith(("dns:", "ipv4:", "ipv6:")):
        options.append(("grpc.service_config", json.dumps(_SERVICE_CONFIG)))
    if credentials.server_name:
        options.append(("grpc.ssl_target_name_override", credentials.server_name))
    return options


def channel(
    target: str,
    credentials: CallerCredentials = _PLAIN,
    tracing: Tracing | None = None,
    *,
    own_connection: bool = False,
) -> grpc.Channel:
    """A channel for blocking callers; connects lazily and again by itself, with its certificates as they are then.

    Channels to one target share a connection, unless one has its own. Its calls are spans of `tracing`, or else of what
    traces where this is called, or else of the program's own tracer provider, if it has set one by now.
    """
    options = _options(target, credentials, own_connection=own_connection)
    if credentials.tls_dir is None:
        return _traced(grpc.insecure_channel(target, options=options), tracing)

    def dial(identity: Identity) -> grpc.Channel:
        opened = grpc.secure_channel(target, credentials.channel_credentials(identity), options=options)
        return _traced(opened, tracing)

    return cast(grpc.Channel, RotatingChannel(lambda: _identity(credentials), dial))


def aio_channel(
    target: str, credentials: CallerCredentials = _PLAIN, tracing: Tracing | None = None
) -> grpc.aio.Channel:
    """A channel for asyncio callers; traced as `channel` is."""
    options, interceptors = _options(target, credentials), _aio_interceptors(tracing)
    if credentials.tls_dir is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)

    def dial(identity: Identity) -> grpc.aio.Channel:
        shown = credentials.channel_credentials(identity)
        return grpc.aio.secure_channel(target, shown, options=options, interceptors=interceptors)

    return cast(grpc.aio.Channel, AioRotatingChannel(lambda: _identity(credentials), dial))


def _traced(opened: grpc.Channel, tracing: Tracing | None) -> grpc.Channel:
    if (tracing := tracing or current_tracing() or callers_tracing()) is None:
        return opened
    from terroir.common.traced_channels import traced

    return traced(opened, tracing)


def _aio_interceptors(tracing: Tracing | None) -> list[Any] | None:
    if (tracing := tracing or current_tracing() or callers_tracing()) is None:
        return None
    from terroir.common.traced_channels import aio_interceptors

    return aio_interceptors(tracing)


def _identity(credentials: CallerCredentials) -> Identity:
    identity = credentials.identity()
    assert identity is not None, "a channel with TLS has a folder"
    return identity


def error_from_rpc(error: grpc.RpcError) -> TerroirError:
    """The TerroirError that the server raised; one that cannot be reached, or is stopping, is Unavailable."""
    restored = from_rpc(error)
    if isinstance(restored, Unavailable) and restored.reason == "UNAVAILABLE":
        return Unavailable(
            f"no answer from the service: {restored}. Is it running? Start everything with `terroir up`; a cluster's "
            "services want a certificate or a token (TERROIR_TLS_DIR, TERROIR_TOKEN_PATH)",
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
