"""The probe service traced, and a service that calls it within a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from terroir.common.credentials import CallerCredentials
from terroir.common.grpc_client import aio_channel
from terroir.common.otel import Tracing
from terroir.common.tracing import Span, following, open_tracing
from tests.integration.common.probe_service import Running, running_probe

OUTER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, PARENT = OUTER.split("-")[1:3]


@dataclass
class Pair:
    """Both sides."""

    probe: Running
    """With a channel that traces nothing."""
    caller: Running
    tracing: Tracing
    """The caller's."""

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.probe.server.port}"

    def outer(self, traceparent: str = OUTER) -> AbstractContextManager[Span]:
        """What the caller is doing: a part of somebody's trace."""
        return following(self.tracing, traceparent, "outer", "internal")


def tracing_of(endpoint: str, service: str = "caller", ratio: float = 1.0) -> Tracing:
    settings = SimpleNamespace(otlp_endpoint=endpoint, trace_sample_ratio=ratio)
    opened = open_tracing(settings, service, lambda _count: None)
    assert opened is not None
    return opened


@asynccontextmanager
async def traced_pair(
    endpoint: str, credentials: CallerCredentials | None = None, **settings: Any
) -> AsyncIterator[Pair]:
    """At its end everything has been delivered."""
    tracing = tracing_of(endpoint)
    try:
        async with running_probe(otlp_endpoint=endpoint, **settings) as probe:
            host = "127.0.0.1" if credentials is None else "localhost"
            shown = credentials or CallerCredentials()
            async with aio_channel(f"{host}:{probe.server.port}", shown, tracing) as opened:
                yield Pair(probe, Running(probe.server, probe.probe, opened), tracing)
    finally:
        await asyncio.to_thread(tracing.close)
