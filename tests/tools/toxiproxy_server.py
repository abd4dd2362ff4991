"""A real Toxiproxy on free ports of loopback: connections that are slow, cut, or go nowhere."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.tools.minio_server import free_port

_START_SECONDS = 20.0


class ToxiproxyServer:
    """One Toxiproxy; each `proxy` it makes has a port of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._log = folder / "toxiproxy.log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-host", "127.0.0.1", "-port", str(self._port)], stdout=log, stderr=log
            )
        until = time.monotonic() + _START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < until, "Toxiproxy did not start in time"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and all its proxies."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    @contextmanager
    def proxy(self, upstream: str) -> Iterator[Proxy]:
        """A healthy way to `upstream` (host:port), removed at the end."""
        address = f"127.0.0.1:{free_port()}"
        name = f"to-{upstream}-{address}".replace(":", "-").replace(".", "-")
        self.ask("POST", "/proxies", {"name": name, "listen": address, "upstream": upstream})
        yield Proxy(self, name, address)
        self.ask("DELETE", f"/proxies/{name}")

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """One request to Toxiproxy's own interface."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=json.dumps(body).encode() if body is not None else None,
            method=method,
        )
        with urllib.request.urlopen(request, timeout=5):
            pass

    def _ready(self) -> bool:
        try:
            self.ask("GET", "/version")
        except (urllib.error.URLError, OSError):
            return False
        return True


class Proxy:
    """One way to a server, and what is wrong with it."""

    def __init__(self, server: ToxiproxyServer, name: str, address: str) -> None:
        self._server = server
        self._name = name
        self.address = address

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    @contextmanager
    def slow(self, milliseconds: int) -> Iterator[None]:
        """Each answer comes later."""
        with self._toxic("latency", {"latency": milliseconds}):
            yield

    @contextmanager
    def narrow(self, kilobytes_per_second: int, stream: str = "upstream") -> Iterator[None]:
        """Bytes come through one by one."""
        with self._toxic("bandwidth", {"rate": kilobytes_per_second}, stream):
            yield

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Connections are accepted and stay open; nothing comes through."""
        with self._toxic("timeout", {"timeout": 0}):
            yield

    @contextmanager
    def without_answers(self) -> Iterator[None]:
        """Requests arrive and are carried out; the connection is cut before the first byte of the answer."""
        with self._toxic("limit_data", {"bytes": 0}):
            yield

    @contextmanager
    def torn(self, after_bytes: int) -> Iterator[None]:
        """Connections are reset once so much of the answers went through."""
        with self._toxic("limit_data", {"bytes": after_bytes}):
            yield

    @contextmanager
    def cut(self) -> Iterator[None]:
        """All connections end and none is accepted."""
        self._server.ask("POST", f"/proxies/{self._name}", {"enabled": False})
        try:
            yield
        finally:
            self._server.ask("POST", f"/proxies/{self._name}", {"enabled": True})

    @contextmanager
    def _toxic(self, kind: str, attributes: dict[str, int], stream: str = "downstream") -> Iterator[None]:
        told = {"name": kind, "type": kind, "stream": stream, "attributes": attributes}
        self._server.ask("POST", f"/proxies/{self._name}/toxics", told)
        try:
            yield
        finally:
            self._server.ask("DELETE", f"/proxies/{self._name}/toxics/{kind}")
