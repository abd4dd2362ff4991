"""The plain HTTP port for those who watch: /metrics for Prometheus, /healthz and /readyz for the kubelet.

It carries no pictures, prompts or secrets, needs no certificates (the kubelet has none), and is for the cluster alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

_OK: Final = "200 OK"
_UNAVAILABLE: Final = "503 Service Unavailable"
Check = Callable[[], bool]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *_arguments: Any) -> None:
        """Say nothing: probes come every few seconds."""


class ProbeServer:
    """Answered by threads, so that a busy event loop shows as such instead of as silence."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int, *, alive: Check, ready: Check) -> None:
        """Raises OSError if the port cannot be had."""
        metrics = make_wsgi_app(registry)
        checks = {"/healthz": alive, "/readyz": ready}

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                return metrics(environ, start_response)
            if path not in checks:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"there are /metrics, /healthz and /readyz\n"]
            well = checks[path]()
            start_response(_OK if well else _UNAVAILABLE, [("Content-Type", "text/plain")])
            return [b"ok\n" if well else b"not now\n"]

        self._server = make_server(host, port, answer, ThreadingWSGIServer, handler_class=_Quiet)
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; blocks for at most half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
