"""A collector that is away, comes back, takes calls and never answers, or wants TLS and credentials."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from terroir.common.otlp import QUEUE_SPANS
from terroir.common.server import Server
from tests.integration.common.probe_service import running_probe
from tests.integration.tracing.collector import collecting
from tests.tools.authority import Authority

InLoop = Callable[[Coroutine[Any, Any, Any]], Any]
CALLS = QUEUE_SPANS + 1500


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def black_hole() -> Iterator[str]:
    """Takes connections and says nothing, as a collector behind a broken network does."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def lost(server: Server) -> float:
    return server.registry.get_sample_value("terroir_trace_spans_lost_total") or 0.0


async def call_many(running: Any, count: int) -> float:
    """Seconds of the slowest of so many calls."""
    slowest = 0.0
    for _ in range(count):
        began = time.perf_counter()
        await running.ask("unary_unary")
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


@pytest.mark.parametrize("silent", [False, True], ids=["nobody listens", "nobody answers"])
def test_calls_go_on_and_a_bounded_number_of_spans_waits(in_loop: InLoop, silent: bool) -> None:
    async def run(endpoint: str) -> None:
        async with running_probe(otlp_endpoint=endpoint, log_level="error") as running:
            slowest = await call_many(running, CALLS)
            assert slowest < 3, "no call waits for the collector, which is tried for five seconds"
            assert running.server.tracing is not None
            waiting = running.server.tracing._destination._processor._batch_processor._queue  # type: ignore
            assert len(waiting) <= QUEUE_SPANS
            began = time.monotonic()
            await running.server.stop(0)
            assert time.monotonic() - began < 6
            # Each is counted: too many for the queue, in a batch that was not taken, or left at the end. On a busy
            # machine the thread with the last batch hears a little later that its call has ended.
            async with asyncio.timeout(20):
                while lost(running.server) < CALLS:
                    await asyncio.sleep(0.05)
            assert lost(running.server) == CALLS

    with capture_logs() as lines, black_hole() as endpoint:
        in_loop(run(endpoint if silent else f"http://127.0.0.1:{free_port()}"))
    told = [line for line in lines if line["event"] == "traces are not delivered"]
    assert len(told) == 1, "said once"
    assert told[0]["log_level"] == "warning"


def test_a_collector_that_comes_back_gets_what_is_new(in_loop: InLoop, capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()

    async def run() -> None:
        async with running_probe(otlp_endpoint=f"http://127.0.0.1:{port}") as running:
            await running.ask("unary_unary")
            async with asyncio.timeout(20):
                while not lost(running.server):
                    await asyncio.sleep(0.1)
            with collecting(port) as collector:
                await running.ask("unary_stream")
                await asyncio.to_thread(collector.wait, lambda spans: spans, 20)
                assert [span.name.rpartition("/")[2] for span in collector.spans] == ["DownloadImage"]
                await running.ask("stream_unary")
                await running.server.stop(0)
                assert len(collector.spans) == 2, "delivered before the stop is over"
            assert lost(running.server) == 1

    with capture_logs() as lines:
        in_loop(run())
    events = [line["event"] for line in lines if "traces" in line["event"]]
    assert events == ["traces are not delivered", "traces are delivered again"]
    assert "opentelemetry" not in capfd.readouterr().err.lower(), "the library says nothing of its own beside our lines"


def test_a_collector_may_want_tls_and_credentials(
    in_loop: InLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    files = authority.write(tmp_path / "collector", "collector")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-collector")

    async def run(endpoint: str) -> float:
        async with running_probe(otlp_endpoint=endpoint) as running:
            await running.ask("unary_unary")
            await running.server.stop(0)
            return lost(running.server)

    with collecting(tls_dir=files) as collector:
        assert in_loop(run(collector.endpoint)) == 0
        assert len(collector.spans) == 1
        assert collector.metadata["authorization"] == "Bearer of-the-collector"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(other_authority(tmp_path)))
        assert in_loop(run(collector.endpoint)) == 1, "a collector of another authority gets nothing"
        assert len(collector.spans) == 1


def other_authority(folder: Path) -> Path:
    (folder / "other.crt").write_bytes(Authority("other").pem)
    return folder / "other.crt"
