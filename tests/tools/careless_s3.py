"""An S3 service, just so far, that answers conditional writes as several real ones did: by ignoring the condition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    refusal: tuple[int, str] | None

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refusal is not None and "If-None-Match" in self.headers:
            status, code = self.refusal
            self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())
            return
        self.objects[self.path] = body
        self._answer(200)

    def do_GET(self) -> None:
        body = self.objects.get(self.path)
        self._answer(404 if body is None else 200, body or b"")

    def do_HEAD(self) -> None:
        self._answer(200 if self.path in self.objects or self.path.count("/") == 1 else 404)

    def do_DELETE(self) -> None:
        self.objects.pop(self.path, None)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def careless_s3(refusal: tuple[int, str] | None = None) -> Iterator[str]:
    """Its endpoint; every bucket is there. With `refusal` a status and an S3 error code answer conditional writes."""
    handler = type("Handler", (_Handler,), {"objects": {}, "refusal": refusal})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
