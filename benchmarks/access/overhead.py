"""A metadata call (GetVersion by alias) through more and more of what protects and watches it, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import yaml
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from terroir._proto.registry.v1 import registry_pb2, registry_pb2_grpc
from terroir.client.registry import Registry
from terroir.common.credentials import CallerCredentials
from terroir.common.grpc_client import channel
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from tests.tools.authority import Authority, Issuer

BARE: Final = "bare"
_LAYER: Final = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
_START_SECONDS: Final = 60.0
_BATCH: Final = 50
"""Calls of one kind before it is the next one's turn."""


@dataclass(frozen=True)
class Overhead:
    """Of one kind of server, in milliseconds."""

    median: float
    p99: float


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans and forgets them."""

    def __init__(self) -> None:
        self.spans = 0

    def Export(self, request: Any, _context: Any) -> Any:
        """See the OTLP contract."""
        self.spans += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def measure(work: Path, calls: int) -> tuple[dict[str, Overhead], int]:
    """Latency by what is switched on, each on top of the one before; and how many spans a collector got."""
    authority, issuer = Authority(), Issuer()
    (work / "jwks.json").write_bytes(issuer.jwks())
    (work / "token").write_text(issuer.token(terroir_roles=["viewer"]))
    rules = {
        "issuers": [issuer.rules(str(work / "jwks.json"))],
        "grants": [
            {"principals": ["cert:publisher"], "roles": ["operator"]},
            {"principals": ["cert:reader"], "roles": ["viewer"]},
        ],
    }
    (work / "access.yaml").write_text(yaml.dump(rules))
    reader = authority.write(work / "reader", "reader")
    mtls = {
        "TLS_DIR": str(authority.write(work / "server", "terroir-registry")),
        "ACCESS_PATH": str(work / "access.yaml"),
    }
    collector = _Collector()
    with ExitStack() as stack:
        spans = stack.enter_context(_collecting(collector))
        token = CallerCredentials(reader, work / "token")
        kinds: dict[str, tuple[Mapping[str, str], CallerCredentials]] = {
            BARE: ({}, CallerCredentials()),
            "request id, metrics, policy, log line": ({}, CallerCredentials()),
            "and mTLS": (mtls, CallerCredentials(reader)),
            "and a token": (mtls, token),
            "and tracing": ({**mtls, "OTLP_ENDPOINT": spans}, token),
        }
        asks = []
        for number, (kind, (settings, shown)) in enumerate(kinds.items()):
            folder = work / f"kind-{number}"
            folder.mkdir()
            target = stack.enter_context(_registry(folder, settings, bare=kind == BARE))
            publishing = CallerCredentials(authority.write(work / "publisher", "publisher")) if settings else shown
            _publish(target, publishing)
            opened = stack.enter_context(channel(target, shown))
            asks.append(registry_pb2_grpc.RegistryServiceStub(opened).GetVersion)
        seconds = _in_turns(asks, calls)
    seen = {
        kind: Overhead(statistics.median(times) * 1e3, float(np.percentile(times, 99)) * 1e3)
        for kind, times in zip(kinds, seconds, strict=True)
    }
    return seen, collector.spans


def _in_turns(asks: list[Any], calls: int) -> list[list[float]]:
    request = registry_pb2.GetVersionRequest(name="adapters/ink@production")
    seconds: list[list[float]] = [[] for _ in asks]
    for round_ in range(-1, max(1, calls // _BATCH)):  # the first warms up
        for times, ask in zip(seconds, asks, strict=True):
            for _ in range(_BATCH):
                began = time.perf_counter()
                ask(request, timeout=10)
                if round_ >= 0:
                    times.append(time.perf_counter() - began)
    return seconds


def _publish(target: str, shown: CallerCredentials) -> None:
    rng = np.random.default_rng(1)
    down, up = (rng.standard_normal(shape, dtype=np.float32) for shape in ((4, 160), (160, 4)))
    with channel(target, shown) as opened:
        registry = Registry(opened)
        data = to_kohya(Adapter({_LAYER: LoraModule(down, up, alpha=4.0)}), {})
        registry.publish(registry_pb2.PublishHeader(adapter="adapters/ink", base="bases/terroir-tiny"), data)
        registry.set_alias("adapters/ink", "production", "adapters/ink/versions/1", reason="benchmark")


@contextmanager
def _registry(folder: Path, settings: Mapping[str, str], *, bare: bool) -> Iterator[str]:
    announce = folder / "announce.json"
    stated = {"DATA_DIR": str(folder / "data"), "PORT": "0", **settings}
    if not bare:
        stated["ANNOUNCE_PATH"] = str(announce)
    told = {f"TERROIR_REGISTRY_{name}": value for name, value in stated.items()}
    command = ["benchmarks.access.bare_registry", str(announce)] if bare else ["terroir.registry.main"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", *command], env={**os.environ, **told}, stdout=log, stderr=log)
    try:
        until = time.monotonic() + _START_SECONDS
        while not announce.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the registry did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        time.sleep(0.1)
        yield f"127.0.0.1:{json.loads(announce.read_text())['ports']['grpc']}"
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _collecting(collector: _Collector) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(1).wait()
