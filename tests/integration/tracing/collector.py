"""A collector that keeps what it receives: OpenTelemetry's own gRPC contract, in a thread of the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

KINDS: Final = {
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_PRODUCER: "producer",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "consumer",
}


@dataclass(frozen=True)
class Received:
    """A span as it arrived."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    begun: int
    """Nanoseconds since 1970."""
    ended: int
    about: dict[str, Any]
    failed: str | None
    """The status's text of a failed one."""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Everything that was exported to it."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.raw: list[bytes] = []
        """Whole messages, for whoever looks for what must not be there."""
        self.metadata: dict[str, Any] = {}
        """Of the newest export."""
        self._lock = threading.Lock()
        self.endpoint = ""

    def Export(self, request: Any, context: Any) -> Any:
        with self._lock:
            self.raw.append(request.SerializeToString())
            self.metadata = dict(context.invocation_metadata())
            for of_resource in request.resource_spans:
                service = _values(of_resource.resource.attributes)["service.name"]
                for scope in of_resource.scope_spans:
                    self.spans += [_received(service, span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of_trace(self, trace: str) -> list[Received]:
        with self._lock:
            return [span for span in self.spans if span.trace == trace]

    def wait(self, found: Callable[[list[Received]], Any], seconds: float = 30) -> Any:
        """The first truthy `found(spans)`."""
        until = time.monotonic() + seconds
        while True:
            with self._lock:
                spans = list(self.spans)
            if result := found(spans):
                return result
            assert time.monotonic() < until, "\n".join(f"{s.service} {s.kind} {s.name} {s.about}" for s in spans)
            time.sleep(0.05)


@contextmanager
def collecting(port: int = 0, tls_dir: Path | None = None) -> Iterator[Collector]:
    """A collector on a free port, or on this one; with TLS if it has a folder with tls.crt and tls.key."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    if tls_dir is None:
        collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    else:
        pair = ((tls_dir / "tls.key").read_bytes(), (tls_dir / "tls.crt").read_bytes())
        credentials = grpc.ssl_server_credentials([pair])
        collector.endpoint = f"https://localhost:{server.add_secure_port(f'127.0.0.1:{port}', credentials)}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


def _received(service: str, span: Any) -> Received:
    failed = span.status.message if span.status.code == trace_pb2.Status.STATUS_CODE_ERROR else None
    return Received(
        service, span.name, KINDS[span.kind], span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.start_time_unix_nano, span.end_time_unix_nano, _values(span.attributes), failed,
    )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in attributes}
