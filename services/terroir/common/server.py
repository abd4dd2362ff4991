"""A gRPC server with health, reflection, metrics and a drain; what every service's main builds on."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from terroir.common.access.access_file import AccessFile
from terroir.common.access.authentication import Authenticator, Credentials, Local
from terroir.common.access.gate import AccessMetrics, Gate, RegionOf
from terroir.common.access.rate_limit import RateLimit
from terroir.common.access.tokens import TokenVerifier
from terroir.common.call import CallInterceptor, RunningCalls
from terroir.common.clock import Clock, SystemClock
from terroir.common.errors import FailedPrecondition
from terroir.common.native_log import NativeLog
from terroir.common.principal import CallPrincipals, local_principal
from terroir.common.probes import ProbeServer
from terroir.common.settings import ServiceSettings
from terroir.common.telemetry import RpcMetrics, ServerMetrics, new_registry
from terroir.common.tls import ServerIdentity
from terroir.common.tracing import open_tracing
from terroir.common.version import code_version

_MESSAGE_BYTES: Final = 8 * 1024 * 1024
_CLEANUP_SECONDS: Final = 2.0
_FAREWELL_SECONDS: Final = 0.5
_ALIVE_SECONDS: Final = 2.0
"""An event loop that does not answer for this long is stuck."""
_log = structlog.get_logger()


class Server:
    """One service's server. Servicers are added before `start`; health is SERVING from `start` on unless held back."""

    def __init__(self, settings: ServiceSettings, *, service_name: str) -> None:
        self.settings = settings
        self.service_name = service_name
        self.registry = new_registry()
        self.port = 0
        self.metrics_port = 0
        self.principals = CallPrincipals()
        self._probes: ProbeServer | None = None
        self._metrics = ServerMetrics(self.registry, service_name, code_version())
        self.tracing = open_tracing(settings, service_name, self._metrics.lost_spans.inc)
        self._identity = self._server_identity()
        self._gate = Gate(
            self._authenticator(SystemClock()),
            RateLimit(settings.rate_limit_calls_per_second, settings.rate_limit_burst_calls, SystemClock()),
            AccessMetrics(self.registry),
        )
        self._serving: dict[str, bool] = {}
        self._native_log: NativeLog | None = None
        self._names: list[str] = [health.SERVICE_NAME]
        self._held: set[str] = set()
        self._stopping = asyncio.Event()
        self._ends: list[Callable[[], None]] = []
        self._calls = RunningCalls()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(RpcMetrics(self.registry), self._calls, self._gate, self.tracing)],
            options=(
                *_connection_age(settings.max_connection_age_seconds),
                # Without this two servers share one port and each gets half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MESSAGE_BYTES),
                ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(self, servicer: Any, add_to_server: Callable[[Any, Any], None], name: str, *, serving: bool = True) -> None:
        """Add a servicer under its full name; `serving=False` holds its health back until `set_serving`."""
        add_to_server(servicer, self._server)
        self._names.append(name)
        if not serving:
            self._held.add(name)

    async def start(self) -> int:
        """Listen; returns the bound port.

        Raises FailedPrecondition: INSECURE_LISTEN_REFUSED for an address beyond loopback, PORT_IN_USE,
        ANNOUNCE_PATH_UNUSABLE.
        """
        settings = self.settings
        self._ensure_safe_to_listen()
        reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self._server)
        try:
            self.port = self._bind(f"{_bracketed(settings.host)}:{settings.port}")
        except RuntimeError as error:
            raise self._port_in_use("port", settings.port) from error
        if settings.metrics_port:
            host, loop = settings.metrics_host or settings.host, asyncio.get_running_loop()
            try:
                self._probes = ProbeServer(
                    self.registry, host, settings.metrics_port,
                    alive=lambda: _answers(loop), ready=lambda: self._serving.get("", False),
                )  # fmt: skip
            except OSError as error:
                raise self._port_in_use("metrics_port", settings.metrics_port) from error
            self.metrics_port = self._probes.port
        # Before the first answer: the health servicer's own beginning is SERVING.
        for name in ["", *self._names]:
            await self.set_serving(name, serving=name not in self._held and not (name == "" and self._held))
        if self._identity is not None:
            self._native_log = NativeLog(self._metrics.handshake_failures.inc)
        await self._server.start()
        try:
            self._announce()
        except OSError as error:
            await self.stop(0)
            raise FailedPrecondition(
                f"{self.service_name} cannot write {settings.announce_path} ({error.strerror}); "
                f"set {self._variable('announce_path')} to a file in a writable folder",
                reason="ANNOUNCE_PATH_UNUSABLE",
            ) from error
        _log.info("listening", port=self.port, metrics_port=self.metrics_port)
        return self.port

    async def set_serving(self, name: str, *, serving: bool) -> None:
        """Set one service's health; the overall health (the empty name) is SERVING once none is held back."""
        await self._tell(name, serving)
        if name in self._held and serving:
            self._held.discard(name)
            if not self._held:
                await self._tell("", serving)
        elif name and not serving and name not in ("", health.SERVICE_NAME):
            self._held.add(name)
            await self._tell("", serving)

    async def _tell(self, name: str, serving: bool) -> None:
        """To callers by the health service, and to the kubelet by /readyz."""
        self._serving[name] = serving
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(name, status)

    async def serve_until_stopped(self) -> None:
        """Serve until SIGTERM, SIGINT or `request_stop`, then drain."""
        self.heed_signals()
        await self._stopping.wait()
        await self.stop(self.settings.drain_timeout_seconds)

    def heed_signals(self) -> None:
        """From now on SIGTERM and SIGINT ask for a stop; one that comes during the start is obeyed after it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)

    def on_stop(self, end: Callable[[], None]) -> None:
        """Call `end` on the event loop before the drain: it ends streams that would last as long as their callers."""
        self._ends.append(end)

    def request_stop(self) -> None:
        """Ask `serve_until_stopped` to drain and return."""
        self._stopping.set()

    async def stop(self, grace_seconds: float) -> None:
        """Turn health to NOT_SERVING; after `drain_delay_seconds` take no new calls; let running ones finish.

        They have `grace_seconds`; without any the stop is at once.

        Meanwhile new calls are refused with UNAVAILABLE (SERVICE_STOPPING), so that callers know why. Calls
        that take longer are cancelled; returns once their handlers have cleaned up, at most two seconds later.
        """
        self._serving.clear()
        await self._health.enter_graceful_shutdown()
        if self.settings.drain_delay_seconds and grace_seconds > 0:
            await asyncio.sleep(self.settings.drain_delay_seconds)
        for end in self._ends:
            end()
        self._calls.closed = True
        last_answers = grace_seconds
        if grace_seconds > 0:
            try:
                await asyncio.wait_for(self._calls.ended(), grace_seconds)
                # Handlers have returned, their last messages may still be on their way.
                last_answers = min(grace_seconds, _FAREWELL_SECONDS)
            except TimeoutError:
                last_answers = 0.0
        await self._server.stop(last_answers)
        # gRPC returns while cancelled handlers still run, and whoever called this closes next what they use.
        try:
            await asyncio.wait_for(self._calls.ended(), _CLEANUP_SECONDS)
        except TimeoutError:
            _log.warning("handlers outlive their cancelled calls", count=self._calls.count)
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
        if self._probes is not None:
            await asyncio.to_thread(self._probes.close)
        if self._native_log is not None:
            await asyncio.to_thread(self._native_log.close)
        _log.info("stopped")

    def scope_regions(self, region_of: RegionOf) -> None:
        """Tell how to find the region of a resource, for callers who are limited to some."""
        self._gate.region_of = region_of

    def _server_identity(self) -> ServerIdentity | None:
        if self.settings.tls_dir is None:
            return None
        identity = ServerIdentity(self.settings.tls_dir, self._metrics.tls_failures.inc)
        self._metrics.watch_certificate(lambda: identity.expires.timestamp())
        return identity

    def _authenticator(self, clock: Clock) -> Authenticator:
        if self.settings.access_path is None:
            return Local(local_principal(self.settings.local_roles))
        access = AccessFile(self.settings.access_path, clock, self._metrics.access_failures.inc)
        return Credentials(access, TokenVerifier(clock))

    def _ensure_safe_to_listen(self) -> None:
        settings = self.settings
        if settings.insecure_listen or _is_loopback(settings.host):
            return
        missing = [
            self._variable(name)
            for name, given in (("tls_dir", settings.tls_dir), ("access_path", settings.access_path))
            if given is None
        ]
        if missing:
            raise FailedPrecondition(
                f"{self.service_name} will not listen on {settings.host} without TLS and authentication: set "
                f"{' and '.join(missing)}, or use 127.0.0.1, or set {self._variable('insecure_listen')}=true on a "
                "network that you trust",
                reason="INSECURE_LISTEN_REFUSED",
            )

    def _bind(self, address: str) -> int:
        if self._identity is None:
            return self._server.add_insecure_port(address)
        required = self.settings.tls_require_client_certificate
        return self._server.add_secure_port(address, self._identity.credentials(require_client_certificate=required))

    def _port_in_use(self, setting: str, port: int) -> FailedPrecondition:
        return FailedPrecondition(
            f"{self.service_name} cannot listen on {self.settings.host}:{port}: the port is in use or not allowed; "
            f"stop the other program or set {self._variable(setting)}",
            reason="PORT_IN_USE",
        )

    def _variable(self, setting: str) -> str:
        return f"{self.settings.model_config.get('env_prefix', '')}{setting}".upper()

    def _announce(self) -> None:
        path = self.settings.announce_path
        if path is None:
            return
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps({"pid": os.getpid(), "ports": {"grpc": self.port, "metrics": self.metrics_port}}))
        partial.replace(path)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and "[" not in host else host


def _connection_age(seconds: float) -> tuple[tuple[str, int], ...]:
    """Without a grace of their own, so that running calls end by themselves."""
    return (("grpc.max_connection_age_ms", int(seconds * 1000)),) if seconds else ()


def _answers(loop: asyncio.AbstractEventLoop) -> bool:
    answered = threading.Event()
    try:
        loop.call_soon_threadsafe(answered.set)
    except RuntimeError:  # closed
        return False
    return answered.wait(_ALIVE_SECONDS)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
