"""Calls as spans, of every kind and with every end. A real server, real channels, real OTLP."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from terroir._proto.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2, registry_pb2_grpc
from terroir.common.credentials import CallerCredentials
from terroir.common.errors import NotFound
from terroir.common.grpc_client import aio_channel, channel
from tests.integration.common.probe_service import Probe
from tests.integration.tracing.collector import Collector, Received
from tests.integration.tracing.traced_probe import OUTER, PARENT, TRACE, traced_pair, tracing_of
from tests.tools.authority import Authority

InLoop = Callable[[Coroutine[Any, Any, Any]], Any]
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
MARKER = "a-lotus-nobody-may-read-of"


def the(spans: list[Received], kind: str) -> Received:
    found = [span for span in spans if span.kind == kind]
    assert len(found) == 1, f"{len(found)} spans of kind {kind}"
    return found[0]


def refused() -> None:
    raise NotFound(f"datasets/{MARKER} does not exist", reason="DATASET_NOT_FOUND")


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_a_span_of_both_sides_in_one_trace(collector: Collector, in_loop: InLoop, kind: str) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            with pair.outer():
                assert await pair.caller.ask(kind)

    in_loop(run())
    spans = collector.of_trace(TRACE)
    outer, sent, served = the(spans, "internal"), the(spans, "client"), the(spans, "server")
    assert (outer.parent, sent.parent, served.parent) == (PARENT, outer.id, sent.id)
    assert outer.begun <= sent.begun <= served.begun <= served.ended <= sent.ended
    assert (sent.service, served.service) == ("terroir-caller", "terroir-probe")
    service, verb = served.name.split("/")
    told = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": verb, "rpc.grpc.status_code": 0}
    assert sent.about == told
    assert served.about.pop("terroir.request_id")
    assert served.about == told


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_told_by_its_codes_and_never_by_its_text(collector: Collector, in_loop: InLoop, kind: str) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            pair.probe.probe.act = refused
            with pair.outer(), pytest.raises(grpc.RpcError, match=MARKER):
                await pair.caller.ask(kind)

    in_loop(run())
    spans = collector.of_trace(TRACE)
    sent, served = the(spans, "client"), the(spans, "server")
    assert (sent.failed, sent.about["rpc.grpc.status_code"]) == ("NOT_FOUND", 5)
    assert (served.failed, served.about["rpc.grpc.status_code"]) == (None, 5)
    assert served.about["terroir.reason"] == "DATASET_NOT_FOUND"
    assert MARKER.encode() not in b"".join(collector.raw)


def test_a_defect_of_the_server_fails_its_span_without_its_text(
    collector: Collector, in_loop: InLoop, capfd: pytest.CaptureFixture[str]
) -> None:
    def defect() -> None:
        try:
            raise KeyError(MARKER)
        except KeyError as error:
            raise RuntimeError(MARKER) from error

    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            pair.probe.probe.act = defect
            with pair.outer(), pytest.raises(grpc.RpcError, match="tell the operator request"):
                await pair.caller.ask("unary_unary")

    in_loop(run())
    assert the(collector.of_trace(TRACE), "server").failed == "INTERNAL"
    output = "".join(capfd.readouterr())
    assert MARKER not in output + str(b"".join(collector.raw))
    assert "builtins.RuntimeError" in output
    assert "builtins.KeyError" in output
    assert "in defect" in output, "the frames are told"


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_a_stream_that_its_reader_leaves_ends_both_spans_as_cancelled(
    collector: Collector,
    in_loop: InLoop,
    kind: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenTelemetry's own interceptors leave the caller's span open, and tracebacks on the server's standard error."""
    monkeypatch.setattr(Probe, "DownloadImage", endless)
    monkeypatch.setattr(Probe, "ImportImages", endless_both_ways)

    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            dataset = pair.caller.dataset
            with pair.outer():
                if kind == "unary_stream":
                    call = dataset.DownloadImage(dataset_pb2.DownloadImageRequest())
                else:
                    call = dataset.ImportImages(offers())
                await call.read()
                assert call.cancel()
            del call
            gc.collect()
            await asyncio.sleep(0.2)

    in_loop(run())
    spans = collector.of_trace(TRACE)
    assert the(spans, "client").about["rpc.grpc.status_code"] == 1
    assert the(spans, "server").about["rpc.grpc.status_code"] == 1
    assert "detach" not in capfd.readouterr().err


async def endless(_self: Probe, _request: Any, _context: Any) -> Any:
    while True:
        yield dataset_pb2.DownloadImageResponse(data=b"more" * 1000)


async def endless_both_ways(_self: Probe, _requests: Any, _context: Any) -> Any:
    while True:
        yield dataset_pb2.ImportImagesResponse(wanted=dataset_pb2.ImageWanted(digest="x"))
        await asyncio.sleep(0.001)


async def offers() -> Any:
    while True:
        yield dataset_pb2.ImportImagesRequest(offer=dataset_pb2.ImageOffer(digest="x"))
        await asyncio.sleep(0.01)


def test_giving_a_call_up_reaches_its_server(collector: Collector, in_loop: InLoop) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            with pair.outer():
                asked = asyncio.ensure_future(pair.caller.dataset.ListDatasets(dataset_pb2.ListDatasetsRequest()))
            await pair.probe.probe.entered.wait()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            async with asyncio.timeout(5):
                while not pair.probe.probe.cancelled:
                    await asyncio.sleep(0.01)

    in_loop(run())
    spans = collector.of_trace(TRACE)
    assert the(spans, "client").about["rpc.grpc.status_code"] == 1
    assert the(spans, "server").about["rpc.grpc.status_code"] == 1


def test_a_deadline_that_passes_and_a_server_that_is_away_fail_the_callers_span(
    collector: Collector, in_loop: InLoop
) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            with pair.outer(), pytest.raises(grpc.RpcError):
                await pair.caller.dataset.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=0.1)
            async with aio_channel("127.0.0.1:1", tracing=pair.tracing) as nowhere:
                with pair.outer(), pytest.raises(grpc.RpcError):
                    await dataset_pb2_grpc.DatasetServiceStub(nowhere).GetDataset(dataset_pb2.GetDatasetRequest())

    in_loop(run())
    failed = {span.failed for span in collector.of_trace(TRACE) if span.kind == "client"}
    assert failed == {"DEADLINE_EXCEEDED", "UNAVAILABLE"}


def test_blocking_calls_are_traced_and_stay_what_they_are(collector: Collector, in_loop: InLoop) -> None:
    """opentelemetry-instrumentation-grpc answers a stream with a bare generator, which nobody can cancel."""

    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:

            def ask() -> None:
                with channel(pair.target, tracing=pair.tracing) as opened, pair.outer():
                    datasets = dataset_pb2_grpc.DatasetServiceStub(opened)
                    registry = registry_pb2_grpc.RegistryServiceStub(opened)
                    assert datasets.GetDataset(dataset_pb2.GetDatasetRequest(name="a"), timeout=5).name == "a"
                    answer, call = datasets.GetDataset.with_call(dataset_pb2.GetDatasetRequest(name="a"), timeout=5)
                    assert (answer.name, call.code()) == ("a", grpc.StatusCode.OK)
                    assert datasets.GetDataset.future(dataset_pb2.GetDatasetRequest(name="a")).result(5).name == "a"
                    chunks = [registry_pb2.PublishVersionRequest(chunk=b"abc")] * 3
                    assert registry.PublishVersion(iter(chunks), timeout=5).size_bytes == 9
                    pictures = datasets.DownloadImage(dataset_pb2.DownloadImageRequest(), timeout=5)
                    assert [part.data for part in pictures] == [b"first", b"second"]
                    offered = [dataset_pb2.ImportImagesRequest(offer=dataset_pb2.ImageOffer(digest="x"))]
                    assert [a.wanted.digest for a in datasets.ImportImages(iter(offered), timeout=5)] == ["x"]
                    left = datasets.DownloadImage(dataset_pb2.DownloadImageRequest(), timeout=5)
                    next(left)
                    assert left.cancel()
                    assert left.code() is grpc.StatusCode.CANCELLED
                    pair.probe.probe.act = refused
                    with pytest.raises(grpc.RpcError, match=MARKER):
                        datasets.GetDataset(dataset_pb2.GetDatasetRequest(name="a"), timeout=5)

            await asyncio.to_thread(ask)

    in_loop(run())
    spans = collector.of_trace(TRACE)
    sent = {span.id: span for span in spans if span.kind == "client"}
    assert sorted(span.about["rpc.grpc.status_code"] for span in sent.values()) == [0, 0, 0, 0, 0, 0, 1, 5]
    assert {span.parent for span in spans if span.kind == "server"} == set(sent)


def test_channels_with_tls_that_dial_anew_are_traced(collector: Collector, in_loop: InLoop, tmp_path: Path) -> None:
    authority = Authority()
    server, caller = authority.write(tmp_path / "server", "probe"), authority.write(tmp_path / "caller", "caller")

    async def run() -> None:
        shown = CallerCredentials(caller)
        async with traced_pair(collector.endpoint, shown, tls_dir=server) as pair:
            with pair.outer():
                for kind in KINDS:
                    assert await pair.caller.ask(kind)

            def ask() -> None:
                target = pair.target.replace("127.0.0.1", "localhost")
                with channel(target, shown, pair.tracing) as opened, pair.outer():
                    stub = dataset_pb2_grpc.DatasetServiceStub(opened)
                    stub.GetDataset(dataset_pb2.GetDatasetRequest(), timeout=5)

            await asyncio.to_thread(ask)

    in_loop(run())
    spans = collector.of_trace(TRACE)
    sent = {span.id for span in spans if span.kind == "client"}
    assert len(sent) == 5
    assert {span.parent for span in spans if span.kind == "server"} == sent


def test_what_brings_no_trace_or_a_broken_one_begins_a_trace(collector: Collector, in_loop: InLoop) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            await pair.probe.ask("unary_unary")
            await pair.probe.ask("unary_unary", metadata=(("traceparent", "00-nonsense"), ("tracestate", ",=,")))
            # A sender with instrumentation of its own is left alone, also by our channel.
            with pair.outer():
                await pair.caller.ask("unary_unary", metadata=(("traceparent", OUTER.replace("0af", "1bf")),))

    in_loop(run())
    served = [span for span in collector.spans if span.kind == "server"]
    assert [span.parent for span in served] == ["", "", PARENT]
    assert len({span.trace for span in served}) == 3
    assert not [span for span in collector.spans if span.kind == "client"]


def test_the_caller_decides_what_is_sampled_and_the_ratio_what_comes_without_a_trace(
    collector: Collector, in_loop: InLoop
) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint, trace_sample_ratio=0.0) as pair:
            await pair.probe.ask("unary_unary")
            await pair.probe.ask("unary_stream", metadata=(("traceparent", OUTER),))
            with pair.outer(OUTER.replace("0af", "1bf")[:-2] + "00"):
                await pair.caller.ask("stream_unary")

    in_loop(run())
    assert [(span.trace, span.kind, span.parent) for span in collector.spans] == [(TRACE, "server", PARENT)]


def test_health_and_what_a_server_does_by_itself_make_no_spans(collector: Collector, in_loop: InLoop) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint, trace_sample_ratio=0.0) as pair:
            await pair.caller.ask("unary_stream")  # outside of a trace, as a watch is
            with pair.outer():
                stub = health_pb2_grpc.HealthStub(pair.caller.channel)
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)

    in_loop(run())
    assert [span.name for span in collector.spans] == ["outer"]


def test_servers_of_one_process_keep_their_spans_apart(collector: Collector, in_loop: InLoop) -> None:
    async def run() -> None:
        async with traced_pair(collector.endpoint) as one, traced_pair(collector.endpoint) as other:
            await asyncio.gather(one.probe.ask("unary_unary"), other.probe.ask("unary_unary"))
            assert one.probe.server.tracing is not other.probe.server.tracing
            await asyncio.to_thread(tracing_of(collector.endpoint, "third").close)
            await other.probe.ask("unary_stream")

    in_loop(run())
    assert len({span.trace for span in collector.spans if span.kind == "server"}) == 3
