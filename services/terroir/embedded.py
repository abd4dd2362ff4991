"""Every service on one machine: four processes over one local folder, joined by real TCP ports.

The processes are those of a cluster deployment, told by environment variables to share a folder instead of a bucket. They
end with this process, also when it is killed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from terroir.client.endpoints import Endpoints
from terroir.common.errors import FailedPrecondition, Unavailable
from terroir.tiny import NATIVE_SIDE

SERVICES: Final = ("registry", "dataset", "training", "inference")
"""In order of start: the others call the registry."""
DEFAULT_PORTS: Final = {"dataset": 7101, "training": 7102, "registry": 7103, "inference": 7104}
_PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class _Service:
    name: str
    process: subprocess.Popen[bytes]
    announce: Path
    log: Path
    port: int = 0


class Embedded:
    """A running Terroir; use it as a context manager.

    Raises FailedPrecondition if the folder is read-only (DATA_DIR_READ_ONLY) or in use (DATA_DIR_IN_USE) and Unavailable
    (SERVICE_FAILED) if a service ends before it is ready; the message holds the end of its log.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
        on_ready: Callable[[str, float], None] = lambda _name, _seconds: None,
    ) -> None:
        """`ports` of 0 (the default for each) let the system choose; `on_ready` hears of each service and its seconds."""
        self._data_dir = data_dir.expanduser().resolve()
        self._ports = dict.fromkeys(SERVICES, 0) | dict(ports or {})
        self._environment = dict(environment or {})
        self._on_ready = on_ready
        self._services: dict[str, _Service] = {}
        self._lock: IO[str] | None = None
        self.endpoints = Endpoints()

    def __enter__(self) -> Self:
        self._claim_folder()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """Process identifiers by service."""
        return {name: service.process.pid for name, service in self._services.items()}

    def wait_until_serving(self, name: str, timeout_seconds: float) -> None:
        """Block until the service's health says SERVING; raises Unavailable (SERVICE_NOT_READY, SERVICE_FAILED)."""
        service = self._services[name]
        until = time.monotonic() + timeout_seconds
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < until:
                self._check_alive(service)
                try:
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                except grpc.RpcError:
                    answer = None
                if answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING:
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
        """Drain all services and end them; safe to call twice."""
        if self._lock is not None:
            Endpoints.forget(self._data_dir)
        running = list(reversed(self._services.values()))
        for service in running:
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        for service in running:
            try:
                service.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
        self._services.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim_folder(self) -> None:
        try:
            (self._data_dir / "run").mkdir(parents=True, exist_ok=True)
            self._lock = (self._data_dir / "run" / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock = None
            raise FailedPrecondition(
                f"another terroir runs on {self._data_dir}; stop it or give this one another --data-dir",
                reason="DATA_DIR_IN_USE",
            ) from None
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
                raise
            raise FailedPrecondition(
                f"cannot write to {self._data_dir} ({error.strerror}); give a writable folder with --data-dir",
                reason="DATA_DIR_READ_ONLY",
            ) from error

    def _start(self) -> None:
        # The registry's address is needed by the training and inference services, the dataset's by training.
        for name in SERVICES[:2]:
            self._spawn(name)
        self._await_ports(SERVICES[:2])
        for name in SERVICES[2:]:
            self._spawn(name)
        self._await_ports(SERVICES[2:])
        self.endpoints = Endpoints(**{name: f"127.0.0.1:{self._services[name].port}" for name in SERVICES})
        self.endpoints.save(self._data_dir)

    def _spawn(self, name: str) -> None:
        run = self._data_dir / "run"
        announce, log = run / f"{name}.json", run / f"{name}.log"
        announce.unlink(missing_ok=True)
        prefix = f"TERROIR_{name.upper()}_"
        settings = {
            f"{prefix}PORT": str(self._ports[name]),
            f"{prefix}DATA_DIR": str(self._data_dir),
            f"{prefix}ANNOUNCE_PATH": str(announce),
        }
        if name == "dataset":
            # Pictures of the tiny base's own size are large enough for it.
            settings[f"{prefix}GATES__MINIMUM_SIDE"] = str(NATIVE_SIDE)
        if name == "training":
            settings[f"{prefix}DATASET_TARGET"] = f"127.0.0.1:{self._services['dataset'].port}"
        if name in ("training", "inference"):
            settings[f"{prefix}REGISTRY_TARGET"] = f"127.0.0.1:{self._services['registry'].port}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"terroir.{name}.main"],
                env={**os.environ, **settings, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A group of its own: Ctrl-C reaches the supervisor alone, which drains the services in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._services[name] = _Service(name, process, announce, log)

    def _await_ports(self, names: tuple[str, ...]) -> None:
        since = time.monotonic()
        waiting = list(names)
        while waiting:
            for name in list(waiting):
                service = self._services[name]
                if service.announce.exists():
                    service.port = int(json.loads(service.announce.read_text())["ports"]["grpc"])
                    self._on_ready(name, time.monotonic() - since)
                    waiting.remove(name)
                else:
                    self._check_alive(service)
            if time.monotonic() - since > 60:
                raise Unavailable(f"{waiting} did not start within 60 s; logs are in {self._data_dir / 'run'}", reason="SERVICE_NOT_READY")
            time.sleep(0.02)

    def _check_alive(self, service: _Service) -> None:
        if (status := service.process.poll()) is None:
            return
        tail = service.log.read_text(errors="replace").strip().splitlines()[-5:]
        raise Unavailable(
            f"{service.name} ended with status {status}:\n  " + "\n  ".join(tail), reason="SERVICE_FAILED"
        )


def _die_with_parent() -> None:
    """Ask Linux to terminate this child when its parent dies, so that a killed supervisor leaves no service behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
