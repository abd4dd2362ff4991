"""What authentication, encryption, metrics and traces cost a metadata call, against the bare call."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.access.overhead import BARE, measure
from benchmarks.bench import Bench
from benchmarks.rows import Row


def rows(bench: Bench) -> Iterator[Row]:
    """Latency of GetVersion by alias over loopback, one caller, each row with all of the rows before it."""
    seen, spans = measure(bench.work, bench.count(4000, 50))
    peer, name = seen[BARE], "the same servicer on a bare grpc.aio server, no TLS"
    for kind, latency in seen.items():
        if kind == BARE:
            continue
        yield bench.row(f"GetVersion with {kind}, p50", "ms", latency.median, peer=peer.median, peer_name=name)
        yield bench.row(f"GetVersion with {kind}, p99", "ms", latency.p99, peer=peer.p99, peer_name=name)
    yield bench.row("spans that the collector received", "spans", float(spans))
