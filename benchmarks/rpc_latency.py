"""How long health and metadata calls take while an inference server draws.

python -m benchmarks.rpc_latency HOST:PORT [--generations 8] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.inference.v1 import inference_pb2_grpc
from terroir.common.grpc_client import aio_channel

_SERVICE: Final = "terroir.inference.v1.InferenceService"
_PAUSE_SECONDS: Final = 0.01
_CALL_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Latency:
    """Of one method, in milliseconds."""

    calls: int
    median: float
    p99: float
    worst: float


@dataclass(frozen=True)
class Latencies:
    """By method: `Check`, `GetServerInfo`, `ListResidentAdapters`."""

    methods: dict[str, Latency]
    pictures: int
    """Drawn meanwhile; without any the latencies say nothing."""

    @property
    def p99(self) -> float:
        """The worst method's, in milliseconds."""
        return max(latency.p99 for latency in self.methods.values())


def measure(
    target: str, *, generations: int = 8, seconds: float = 10.0, request: pb.GenerateRequest | None = None
) -> Latencies:
    """Keep `generations` streams drawing (with previews, unless `request` says otherwise) and call the other methods.

    Each method is called one call after the other, over a connection of its own, from a process that does little else.
    """
    wanted = request or pb.GenerateRequest(prompt="a red cat", seeds=[1, 2], steps=20, preview_interval_steps=2)
    return asyncio.run(_measure(target, generations, seconds, wanted))


async def _measure(target: str, generations: int, seconds: float, request: pb.GenerateRequest) -> Latencies:
    async with aio_channel(target) as drawing, aio_channel(target) as asking:
        pictures = itertools.count()
        draws = [asyncio.create_task(_draw(drawing, request, pictures)) for _ in range(generations)]
        try:
            stub, health = inference_pb2_grpc.InferenceServiceStub(asking), health_pb2_grpc.HealthStub(asking)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "Check": lambda: health.Check(
                    health_pb2.HealthCheckRequest(service=_SERVICE), timeout=_CALL_TIMEOUT_SECONDS
                ),
                "GetServerInfo": lambda: stub.GetServerInfo(
                    pb.GetServerInfoRequest(), timeout=_CALL_TIMEOUT_SECONDS
                ),
                "ListResidentAdapters": lambda: stub.ListResidentAdapters(
                    pb.ListResidentAdaptersRequest(), timeout=_CALL_TIMEOUT_SECONDS
                ),
            }  # fmt: skip
            until = time.monotonic() + seconds
            seen = await asyncio.gather(*(_ask(call, until) for call in calls.values()))
        finally:
            for draw in draws:
                draw.cancel()
            ended = await asyncio.gather(*draws, return_exceptions=True)
        for failure in (end for end in ended if isinstance(end, grpc.RpcError)):
            raise failure
    return Latencies(dict(zip(calls, map(_latency, seen), strict=True)), next(pictures))


async def _draw(opened: grpc.aio.Channel, request: pb.GenerateRequest, pictures: Any) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(opened)
    while True:
        async for event in stub.Generate(request, timeout=600):
            if event.picture.last:
                next(pictures)


async def _ask(call: Callable[[], Awaitable[object]], until: float) -> list[float]:
    seen = []
    while time.monotonic() < until:
        began = time.perf_counter()
        await call()
        seen.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_PAUSE_SECONDS)
    return seen


def _latency(milliseconds: list[float]) -> Latency:
    ordered = sorted(milliseconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return Latency(len(ordered), round(statistics.median(ordered), 2), round(p99, 2), round(ordered[-1], 2))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rpc_latency", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("target", help="address of an inference server, host:port")
    parser.add_argument("--generations", type=int, default=8, help="streams that draw")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long")
    options = parser.parse_args()
    seen = measure(options.target, generations=options.generations, seconds=options.seconds)
    for method, latency in seen.methods.items():
        print(f"{method:22} {latency.calls:6} calls, median {latency.median:.1f} ms, p99 {latency.p99:.1f} ms")
    print(f"{seen.pictures} pictures meanwhile")


if __name__ == "__main__":
    main()
