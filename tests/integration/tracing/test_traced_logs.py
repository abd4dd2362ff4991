"""Lines of the log lead to the trace, and the trace to them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import structlog

from terroir.common.telemetry import configure_logging
from terroir.common.tracing import record, span
from tests.integration.common.probe_service import running_probe
from tests.integration.tracing.collector import Collector
from tests.integration.tracing.traced_probe import OUTER, TRACE, traced_pair

InLoop = Callable[[Coroutine[Any, Any, Any]], Any]
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def work() -> None:
    log = structlog.get_logger()
    log.info("in the call")
    with span("part", adapter="adapters/ink/versions/1"):
        log.info("in the part")
    record("over", 0.0, 0.0)
    logging.getLogger("terroir.store.documents").warning("markers of %s are behind", "jobs/a")
    log.info("after the part")


@pytest.mark.parametrize("kind", KINDS)
def test_each_line_of_a_call_names_its_trace_and_span(
    collector: Collector, in_loop: InLoop, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    configure_logging("probe", "info")

    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            pair.probe.probe.act = work
            await pair.probe.ask(kind, metadata=(("traceparent", OUTER), ("x-request-id", "order-7")))

    in_loop(run())
    lines = {line["event"]: line for line in map(json.loads, capsys.readouterr().err.splitlines())}
    spans = {span.name.rpartition("/")[2] if span.kind == "server" else span.name: span for span in collector.spans}
    served = next(span for span in collector.spans if span.kind == "server")
    assert lines["markers of jobs/a are behind"]["logger"] == "terroir.store.documents"
    for event in ("in the call", "markers of jobs/a are behind", "after the part", "call"):
        assert (lines[event]["trace_id"], lines[event]["span_id"]) == (TRACE, served.id)
        assert lines[event]["request_id"] == served.about["terroir.request_id"] == "order-7"
    assert (lines["in the part"]["trace_id"], lines["in the part"]["span_id"]) == (TRACE, spans["part"].id)
    assert spans["part"].parent == spans["over"].parent == served.id
    assert "trace_id" not in lines["listening"]


def test_lines_of_a_call_that_is_not_sampled_name_the_trace_too(
    collector: Collector, in_loop: InLoop, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("probe", "info")

    async def run() -> None:
        async with traced_pair(collector.endpoint) as pair:
            await pair.probe.ask("unary_unary", metadata=(("traceparent", OUTER[:-2] + "00"),))

    in_loop(run())
    called = next(line for line in map(json.loads, capsys.readouterr().err.splitlines()) if line["event"] == "call")
    assert called["trace_id"] == TRACE
    assert collector.spans == []


def test_without_a_collector_lines_name_no_trace(in_loop: InLoop, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("probe", "info")

    async def run() -> None:
        async with running_probe() as running:
            running.probe.act = work
            await running.ask("unary_unary", metadata=(("traceparent", OUTER),))

    in_loop(run())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"in the part", "call"} <= {line["event"] for line in lines}
    assert not any("trace_id" in line for line in lines)
