"""Every service on one machine: four processes over one local folder or bucket, joined by real TCP ports.

The processes are those of a cluster deployment, told by environment variables where their objects are. They end with
this process, also when it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from terroir.client.endpoints import Endpoints
from terroir.common.credentials import CallerCredentials
from terroir.common.errors import FailedPrecondition, TerroirError, Unavailable
from terroir.common.folder_lock import FolderLock
from terroir.common.grpc_client import channel
from terroir.tiny import NATIVE_SIDE

CONTROL_SERVICES: Final = ("registry", "dataset", "training")
SERVICES: Final = (*CONTROL_SERVICES, "inference")
"""In order of start; they are stopped in the opposite order, so that whoever calls ends before whom it calls."""
DEFAULT_PORTS: Final = {"dataset": 7101, "training": 7102, "registry": 7103, "inference": 7104}
START_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 5
"""Running calls get this long at Ctrl-C: a person waits, and watch streams would never end by themselves."""
STOP_SECONDS: Final = 60.0
"""A service that has not ended by then is killed; the training service ends its Ray within this time."""
_PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_NAMED_FAILURE: Final = re.compile(r"^terroir \w+: \[([A-Z0-9_]+)\] (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class ObjectPlace:
    """A bucket in place of the local folder; its keys come by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    url: str
    """`s3://bucket/prefix`."""
    endpoint: str = ""
    """`https://host:port`; empty: AWS."""

    def settings(self) -> dict[str, str]:
        """As the services' settings name it."""
        return {"STORE": self.url} | ({"STORE_ENDPOINT": self.endpoint} if self.endpoint else {})


@dataclass
class _Service:
    name: str
    process: subprocess.Popen[bytes]
    announce: Path
    log: Path


class Embedded:
    """A running Terroir; a context manager for the main thread: services end with the thread that started them.

    Raises FailedPrecondition if the folder cannot be used (DATA_DIR_READ_ONLY, DATA_DIR_IN_USE) or a service refuses
    to start (its own reason, such as PORT_IN_USE), and Unavailable (SERVICE_FAILED) if one ends without naming a
    reason; the message then holds the end of its log.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: Mapping[str, int] | None = None,
        store: ObjectPlace | None = None,
        inference: bool = True,
        environment: Mapping[str, str] | None = None,
        on_ready: Callable[[str, float], None] = lambda _name, _seconds: None,
    ) -> None:
        """`ports` of 0 (the default for each) take free ones; `on_ready` hears of each service and its seconds.

        With `store` the objects are in a bucket, and `data_dir` keeps caches, logs and the local Ray. Without
        `inference` nothing here draws; its endpoint is told all the same, and nobody answers there.
        """
        self._inference = inference
        self._data_dir = data_dir.expanduser().resolve()
        self._wanted = dict.fromkeys(SERVICES, 0) | dict(ports or {})
        self._store = store.settings() if store is not None else {}
        self._environment = dict(environment or {})
        self._on_ready = on_ready
        self._services: dict[str, _Service] = {}
        self._lock = FolderLock(self._data_dir, drain_seconds=STOP_SECONDS)
        self.endpoints = Endpoints()

    def __enter__(self) -> Self:
        self._lock.take()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """Process identifiers by service."""
        return {name: service.process.pid for name, service in self._services.items()}

    def wait_until_serving(self, name: str, timeout_seconds: float) -> None:
        """Block until the service's health says SERVING; raises Unavailable (SERVICE_NOT_READY, SERVICE_FAILED)."""
        service = self._services[name]
        until = time.monotonic() + timeout_seconds
        with channel(getattr(self.endpoints, name), CallerCredentials.of_environment()) as opened:
            health = health_pb2_grpc.HealthStub(opened)
            while time.monotonic() < until:
                self._check_alive(service)
                with contextlib.suppress(grpc.RpcError):
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                time.sleep(0.05)
        raise Unavailable(
            f"{name} was not ready after {timeout_seconds:.0f} s; its log is {service.log}", reason="SERVICE_NOT_READY"
        )

    def watch(self, interval_seconds: float = 0.5) -> None:
        """Return never, but raise Unavailable (SERVICE_FAILED) when a service ends."""
        while True:
            for service in self._services.values():
                self._check_alive(service)
            time.sleep(interval_seconds)

    def stop(self) -> None:
        """Drain all services and end them; safe to call twice, and again after it was interrupted."""
        if self._lock.held:
            Endpoints.forget(self._data_dir)
        running = list(reversed(self._services.values()))
        for service in running:
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for service in running:
            try:
                service.process.wait(timeout=max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
        if running:
            self._end_orphaned_ray()
        self._services.clear()
        self._lock.release()

    def _start(self) -> None:
        ports = _with_free_ports(self._wanted)
        self.endpoints = Endpoints(**{name: f"127.0.0.1:{port}" for name, port in ports.items()})
        since = time.monotonic()
        for name in CONTROL_SERVICES:
            self._spawn(name, ports[name])
        # Loading the model keeps every core busy for seconds: the control services come first.
        self._await_listening(CONTROL_SERVICES, since)
        if self._inference:
            self._spawn("inference", ports["inference"])
            self._await_listening(("inference",), since)
        self.endpoints.save(self._data_dir)

    def _end_orphaned_ray(self) -> None:
        """End the local Ray of a training service that was killed: only it could have done so in time."""
        if not (self._data_dir / "run" / "ray.json").exists():
            return
        # Loaded here alone: a rare path, of an extra that only a trained job has made necessary.
        from terroir.common.telemetry import configure_logging
        from terroir.training.cluster.ray_head import LocalRay

        configure_logging("embedded", "warning")  # standard output belongs to results
        LocalRay(self._data_dir, cpus=1, object_store_bytes=0, start_seconds=0).stop()

    def _spawn(self, name: str, port: int) -> None:
        run = self._data_dir / "run"
        announce, log = run / f"{name}.json", run / f"{name}.log"
        announce.unlink(missing_ok=True)
        settings = self._settings(name) | {"PORT": str(port), "ANNOUNCE_PATH": str(announce)}
        variables = {f"TERROIR_{name.upper()}_{setting}": value for setting, value in settings.items()}
        with log.open("wb") as output, _interrupts_afterwards():
            process = subprocess.Popen(
                [sys.executable, "-m", f"terroir.{name}.main"],
                env={**os.environ, **variables, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self._lock.inherited(),
                # A session of its own: Ctrl-C reaches the supervisor alone, which drains the services in order.
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
            self._services[name] = _Service(name, process, announce, log)

    def _settings(self, name: str) -> dict[str, str]:
        common = {"DATA_DIR": str(self._data_dir), "DRAIN_TIMEOUT_SECONDS": str(DRAIN_SECONDS), **self._store}
        if name == "inference":  # adapters come from the registry; the store keeps its covers
            return common | {"REGISTRY_TARGET": self.endpoints.registry}
        if name == "dataset":
            # Pictures of the tiny base's own size are large enough for it.
            return common | {"GATES__MINIMUM_SIDE": str(NATIVE_SIDE)}
        if name == "training":
            return common | {"DATASET_TARGET": self.endpoints.dataset, "REGISTRY_TARGET": self.endpoints.registry}
        return common

    def _await_listening(self, names: Sequence[str], since: float) -> None:
        waiting = list(names)
        while waiting:
            for name in list(waiting):
                service = self._services[name]
                if _announced(service):
                    self._on_ready(name, time.monotonic() - since)
                    waiting.remove(name)
                else:
                    self._check_alive(service)
            if time.monotonic() - since > START_SECONDS:
                raise Unavailable(
                    f"{', '.join(waiting)} did not start within {START_SECONDS:.0f} s; logs are in "
                    f"{self._data_dir / 'run'}",
                    reason="SERVICE_NOT_READY",
                )
            time.sleep(0.01)

    def _check_alive(self, service: _Service) -> None:
        if (status := service.process.poll()) is not None:
            raise _failure(service.name, status, service.log.read_text(errors="replace"))


@contextlib.contextmanager
def _interrupts_afterwards() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM after the block: Python ignores what a handler raises in a callback around a fork."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # handlers run, and can be set, in that one alone
        yield
        return
    handlers = {
        number: signal.signal(number, lambda number, _frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for arriving in arrived:
        signal.raise_signal(arriving)


def _failure(name: str, status: int, log: str) -> TerroirError:
    """Why a service ended: the reason that it named itself, else the end of its log."""
    if named := _NAMED_FAILURE.findall(log):
        reason, message = named[-1]
        hint = "; or let the system choose ports: --free-ports" if reason == "PORT_IN_USE" else ""
        return FailedPrecondition(f"{message}{hint}", reason=reason, metadata={"service": name})
    tail = "\n  ".join(log.strip().splitlines()[-5:])
    return Unavailable(f"{name} ended with status {status}:\n  {tail}", reason="SERVICE_FAILED")


def _announced(service: _Service) -> bool:
    """Whether this very process listens, not one of an earlier start."""
    try:
        return int(json.loads(service.announce.read_text())["pid"]) == service.process.pid
    except FileNotFoundError:
        return False


def _with_free_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """Replace each 0 by a free port, so that services know each other's address before any of them runs.

    Another program may take one before its service does; that start fails with PORT_IN_USE and can be repeated.
    """
    with contextlib.ExitStack() as open_sockets:
        ports = {}
        for name, port in wanted.items():
            if port == 0:
                probe = open_sockets.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            ports[name] = port
        return ports


def _die_with(parent: int) -> Callable[[], None]:
    """Ask Linux to terminate this child when its parent dies, so that a killed supervisor leaves no service behind."""

    def ask() -> None:
        if _LIBC is None:
            return
        _LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could be watched
            os._exit(1)

    return ask
