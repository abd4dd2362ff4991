"""A real inference server with a real engine process, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from terroir._proto.inference.v1 import cover_pb2_grpc, inference_pb2_grpc
from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.common.errors import TerroirError
from terroir.common.grpc_client import channel, error_from_rpc
from terroir.common.server import Server
from terroir.common.settings import ServiceSettings
from terroir.inference.main import INFERENCE_SERVICE, build
from terroir.inference.settings import InferenceSettings


@dataclass
class Answer:
    """A finished Generate stream."""

    events: list[pb.GenerateResponse]
    files: dict[int, bytes] = field(default_factory=dict)

    @property
    def done(self) -> pb.Done:
        """The last event."""
        return self.events[-1].done

    def kinds(self) -> list[str]:
        """Kinds of events in order, repetitions left out."""
        kinds = [event.WhichOneof("event") or "" for event in self.events]
        return [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]


@dataclass
class RunningInference:
    """Calls of a running server."""

    stub: Any
    health: Any
    covers: Any = None

    def generate(self, timeout: float = 120, **fields: Any) -> Answer:
        """Draw a small picture with fields replaced."""
        answer = Answer(list(self.stub.Generate(small_request(**fields), timeout=timeout)))
        for event in answer.events:
            if event.WhichOneof("event") == "picture":
                answer.files[event.picture.index] = answer.files.get(event.picture.index, b"") + event.picture.data
        return answer

    def refusal(self, timeout: float | None = 120, **fields: Any) -> TerroirError:
        """The error of a request that must fail, as a client sees it."""
        try:
            list(self.stub.Generate(small_request(**fields), timeout=timeout))
        except grpc.RpcError as error:
            return error_from_rpc(error)
        raise AssertionError("the request was not refused")

    def serving(self) -> bool:
        """What health says."""
        request = health_pb2.HealthCheckRequest(service=INFERENCE_SERVICE)
        status: int = self.health.Check(request, timeout=10).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING)

    def wait_until_serving(self, timeout: float = 240) -> None:
        """Health's own stream says when."""
        request = health_pb2.HealthCheckRequest(service=INFERENCE_SERVICE)
        for answer in self.health.Watch(request, timeout=timeout):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return

    def engine_pid(self) -> int:
        """Process identifier of the engine."""
        return int(self.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10).engine_pid)


def small_request(**fields: Any) -> pb.GenerateRequest:
    """32 × 32 in 3 steps."""
    plain: dict[str, Any] = {"prompt": "a red cat", "width": 32, "height": 32, "steps": 3, "seeds": [7]}
    return pb.GenerateRequest(**{**plain, **fields})


@contextmanager
def running_server(
    name: str, settings: ServiceSettings, build: Callable[[Any, Server], AbstractAsyncContextManager[None]]
) -> Iterator[str]:
    """Address of a service started on a free port; stopped at the end."""
    began: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        server, stop = Server(settings, service_name=name), asyncio.Event()
        async with build(settings, server):
            began.set_result((await server.start(), asyncio.get_running_loop(), stop))
            await stop.wait()
            await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    port, loop, stop = began.result(timeout=60)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)


@contextmanager
def running_inference(settings: InferenceSettings) -> Iterator[RunningInference]:
    """A server whose engine may still be loading."""
    with running_server("inference", settings, build) as target, channel(target) as opened:
        yield RunningInference(
            inference_pb2_grpc.InferenceServiceStub(opened),
            health_pb2_grpc.HealthStub(opened),
            cover_pb2_grpc.CoverServiceStub(opened),
        )


def until(condition: Any, timeout: float = 60) -> None:
    """Poll a condition that another process makes true."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.02)
