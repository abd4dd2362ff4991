"""A local Ray: started with the first job, found again after a crash of the service, ended with the service.

It listens on loopback only and asks for a token, because whoever reaches Ray may run code as this user.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil
import structlog

from terroir.training.cluster.ray_jobs import RayEndpoint, RayJobs
from terroir.training.errors import RayUnavailable

_log = structlog.get_logger(__name__)
# Ray replaces 127.0.0.1 by the machine's outward address; the rest of 127.0.0.0/8 is loopback too and stays.
_LOOPBACK: Final = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


@dataclass(frozen=True)
class _Running:
    """What is remembered of a local Ray beside its endpoint."""

    pid: int
    started: float
    """Start time of the process, which tells it from another one with the same identifier."""
    folder: str
    url: str
    token: str = field(repr=False)
    session: str


class LocalRay:
    """One Ray node on this machine."""

    def __init__(self, data_dir: Path, *, cpus: int, object_store_bytes: int, start_seconds: float) -> None:
        self._file = data_dir / "run" / "ray.json"
        self._cpus = cpus
        self._object_store_bytes = object_store_bytes
        self._start_seconds = start_seconds

    def running(self) -> RayEndpoint | None:
        """The Ray that this service, or one before it on the same folder, has started and that still answers."""
        known = self._known()
        if known is None:
            return None
        endpoint = RayEndpoint(known.url, known.token, known.session)
        return endpoint if RayJobs(endpoint).alive() else None

    def ensure(self) -> RayEndpoint:
        """Find or start it; raises RayUnavailable (RAY_START_FAILED) with the end of its output."""
        if endpoint := self.running():
            return endpoint
        self.stop()
        return self._start()

    def stop(self) -> None:
        """End every process of it, also when its head has crashed; safe to call at any time."""
        known = self._remembered()
        if known is None:
            return
        head = _alive(known)
        processes = {*([head] if head else []), *(_descendants(head) if head else []), *_of_session(known.folder)}
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(list(processes), timeout=3)
        for process in {*alive, *_of_session(known.folder)}:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=3)
        shutil.rmtree(known.folder, ignore_errors=True)
        self._file.unlink(missing_ok=True)
        _log.info("local_ray_stopped")

    def _known(self) -> _Running | None:
        known = self._remembered()
        return known if known and _alive(known) else None

    def _remembered(self) -> _Running | None:
        try:
            return _Running(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _start(self) -> RayEndpoint:
        # AF_UNIX paths hold 107 bytes and Ray adds about 70 of its own: the data folder's path may be too long.
        folder = tempfile.mkdtemp(prefix="tray-", dir="/tmp" if os.name == "posix" else None)
        port, token = _free_port(), secrets.token_hex(32)
        output = Path(folder) / "start.log"
        with output.open("wb") as log:
            process = subprocess.Popen(
                self._command(folder, port),
                env=os.environ | _environment(token),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        endpoint = RayEndpoint(f"http://127.0.0.1:{port}", token, secrets.token_hex(8))
        started = psutil.Process(process.pid).create_time()
        self._remember(_Running(process.pid, started, folder, endpoint.url, token, endpoint.session))
        self._await(endpoint, process, output)
        _log.info("local_ray_started", pid=process.pid, dashboard=endpoint.url)
        return endpoint

    def _command(self, folder: str, port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={_LOOPBACK}", "--port=0", f"--temp-dir={folder}", f"--num-cpus={self._cpus}"),
            *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
            f"--object-store-memory={self._object_store_bytes}",
            # Fixed by default, so that a second Ray on the machine would fail.
            *(f"--ray-client-server-port={_free_port()}", "--dashboard-agent-listen-port=0"),
            # What a single node does not need: an autoscaler, and logs forwarded to terminals.
            *("--no-monitor", "--include-log-monitor=false"),
        ]

    def _await(self, endpoint: RayEndpoint, process: subprocess.Popen[bytes], output: Path) -> None:
        until = time.monotonic() + self._start_seconds
        jobs = RayJobs(endpoint)
        while not jobs.alive():
            if process.poll() is not None or time.monotonic() > until:
                tail = "\n  ".join(output.read_text(errors="replace").strip().splitlines()[-8:])
                self.stop()
                shutil.rmtree(output.parent, ignore_errors=True)
                raise RayUnavailable(f"the local Ray did not start:\n  {tail}", reason="RAY_START_FAILED")
            time.sleep(0.2)

    def _remember(self, running: _Running) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(asdict(running)))
        partial.replace(self._file)


def _environment(token: str) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Workers start when a task needs them: idle ones would only hold memory.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path and Path(path).is_dir()),
    }


def _alive(known: _Running) -> psutil.Process | None:
    try:
        process = psutil.Process(known.pid)
        same = abs(process.create_time() - known.started) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _descendants(head: psutil.Process) -> list[psutil.Process]:
    try:
        return head.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _of_session(folder: str) -> list[psutil.Process]:
    """Processes whose command line names this Ray's own folder: those that left the tree."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(folder in part for part in process.info["cmdline"] or ())
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
