"""A real MinIO on a free port of loopback with a folder of its own; stopped, killed and started again by tests."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from terroir.store.bucket import ensure_bucket
from terroir.store.s3 import S3Location, S3Store

ACCESS_KEY, SECRET_KEY = "terroir-tests", "not-a-secret-of-anybody"
_START_SECONDS = 60.0


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MinioServer:
    """One MinIO; `endpoint` stays the same over restarts."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it serves."""
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
        }
        with (self._folder.parent / "minio.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "server", "--quiet", "--address", self.address, str(self._folder)],
                env=environment,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, (self._folder.parent / "minio.log").read_text()[-2000:]
            assert time.monotonic() < until, "MinIO did not start in time"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(kill=True)

    def location(self, bucket: str | None = None, **changes: object) -> S3Location:
        """A bucket on it: a fresh one unless it is named; made by the time this returns."""
        location = S3Location(
            bucket=bucket or f"test-{uuid.uuid4().hex[:12]}",
            endpoint=self.endpoint,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            **changes,  # type: ignore[arg-type]
        )
        ensure_bucket(location)
        return location

    def store(self) -> S3Store:
        """A store in a fresh bucket."""
        return S3Store(self.location())

    def settings(self, service: str, location: S3Location) -> dict[str, str]:
        """Environment that points a service at a bucket."""
        named = {
            "STORE": f"s3://{location.bucket}" + (f"/{location.prefix}" if location.prefix else ""),
            "STORE_ENDPOINT": location.endpoint,
            "STORE_ACCESS_KEY_ID": location.access_key_id,
            "STORE_SECRET_ACCESS_KEY": location.secret_access_key,
        }
        return {f"TERROIR_{service.upper()}_{name}": value for name, value in named.items()}

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/minio/health/live", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _end(self, *, kill: bool) -> None:
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(30)
        self._process = None
