"""Tracing that is off costs nothing, one that is wrong is refused, and spans tell no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from terroir.common import tracing
from terroir.common.errors import InvalidArgument, NotFound
from terroir.store.errors import StoreUnavailable

SERVICES = Path(__file__).resolve().parents[3] / "services"


def settings(endpoint: str) -> SimpleNamespace:
    return SimpleNamespace(otlp_endpoint=endpoint, trace_sample_ratio=1.0)


@pytest.mark.parametrize(
    "program",
    [
        "import terroir.dataset.main, terroir.registry.main, terroir.inference.main, terroir.training.main",
        "import terroir.training.attempt.order, terroir.cli.main",
        # A whole server and channels of both kinds, with spans asked for.
        "import asyncio, grpc\n"
        "from terroir.common import tracing\n"
        "from terroir.common.grpc_client import aio_channel, channel\n"
        "from terroir.common.server import Server\n"
        "from terroir.common.settings import ServiceSettings\n"
        "async def run():\n"
        "    server = Server(ServiceSettings(), service_name='x')\n"
        "    await server.start()\n"
        "    with tracing.span('x', of=1), tracing.following(server.tracing, '00-1', 'x', 'consumer'):\n"
        "        tracing.record('x', 0.0, 1.0)\n"
        "        assert (tracing.trace_ids(), tracing.current_traceparent()) == ({}, '')\n"
        "    assert type(channel('127.0.0.1:1', tracing=server.tracing)) is grpc._channel.Channel\n"
        "    opened = aio_channel('127.0.0.1:1', tracing=server.tracing)\n"
        "    assert not opened._unary_unary_interceptors and not opened._unary_stream_interceptors\n"
        "    await opened.close()\n"
        "    await server.stop(0)\n"
        "asyncio.run(run())",
    ],
    ids=["services", "training and cli", "a server"],
)
def test_without_a_collector_nothing_of_opentelemetry_is_loaded(program: str) -> None:
    source = f"{program}\nimport json, sys\nprint()\nprint(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(SERVICES)}
    ran = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True)
    loaded = json.loads(ran.stdout.splitlines()[-1])
    assert [name for name in loaded if name.startswith("opentelemetry")] == []
    assert "terroir.common.otel" not in loaded


@pytest.mark.parametrize("sets_a_provider", [False, True])
def test_channels_of_a_program_are_traced_once_it_has_a_tracer_provider(sets_a_provider: bool) -> None:
    """That some library has loaded OpenTelemetry is no reason to pay for it."""
    source = "import grpc, opentelemetry.trace as trace, opentelemetry.sdk.trace as sdk\n"
    source += "trace.set_tracer_provider(sdk.TracerProvider())\n" if sets_a_provider else ""
    source += (
        "from terroir.common.grpc_client import channel\n"
        "print(type(channel('127.0.0.1:1')) is not grpc._channel.Channel)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SERVICES)}
    ran = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(sets_a_provider)


@pytest.mark.parametrize(
    "endpoint", ["collector:4317", "grpc://collector:4317", "https://ana:s3cret@collector:4317", "/var/run/otel.sock"]
)
def test_what_is_no_address_of_a_collector_is_refused_without_showing_it(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match=r"write http://host:4317") as refused:
        tracing.open_tracing(settings(endpoint), "x", print)
    assert refused.value.reason == "INVALID_SETTING"
    assert "s3cret" not in str(refused.value)


def test_no_collector_is_no_tracing() -> None:
    assert tracing.open_tracing(settings(""), "x", print) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotFound("adapters/secret-lotus", reason="ADAPTER_NOT_FOUND"), "ADAPTER_NOT_FOUND"),
        (StoreUnavailable("no answer from https://key@bucket", "jobs/a"), "STORE_UNAVAILABLE"),
        (KeyError("a prompt"), "KeyError"),
    ],
)
def test_a_span_tells_what_failed_by_code_or_class(error: Exception, told: str) -> None:
    assert tracing.reason_of(error) == told


def test_identifiers_do_not_repeat_where_random_is_seeded() -> None:
    """Two attempts at one job seed alike; with OpenTelemetry's own identifiers their spans would be the same."""
    import random

    from terroir.common.otlp import _Identifiers

    made = _Identifiers()
    drawn = []
    for _ in range(2):
        random.seed(7)
        drawn += [made.generate_span_id(), made.generate_trace_id()]
    assert len(set(drawn)) == 4
    assert all(0 < number < 1 << 128 for number in drawn)
