"""A rolling restart under load: every request that was made is answered with its picture.

TERROIR_SOAK_ROLLING_REQUESTS sets how many requests; the soak takes 1,000.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from terroir._proto.inference.v1 import inference_pb2_grpc
from terroir.client import Client
from terroir.client.endpoints import Endpoints
from terroir.common.grpc_client import channel
from tests.integration.inference.inference_process import InferenceProcess
from tests.integration.inference.inference_server import small_request, until
from tests.tools.minio_server import free_port

REQUESTS = int(os.environ.get("TERROIR_SOAK_ROLLING_REQUESTS", "30"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + REQUESTS)]
REPLICAS = 3 if REQUESTS >= 1000 else 2
CALLERS = 2 * REPLICAS
Draw = Callable[[int], int]


class Fleet:
    """Replicas on fixed ports, restarted one after the other as a Deployment does it."""

    def __init__(self, folder: Path, base: Path) -> None:
        self._folder, self._base = folder, base
        self._ports = [free_port() for _ in range(REPLICAS)]
        self._running: dict[int, InferenceProcess] = {}
        self.restarts = 0
        for number in range(REPLICAS):
            self._start(number)

    @property
    def targets(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._ports]

    def _start(self, number: int) -> None:
        folder = self._folder / f"{number}-{self.restarts}"
        folder.mkdir()
        server = self._running[number] = InferenceProcess(
            folder, self._base, port=self._ports[number], drain_delay_seconds=0.5, drain_timeout_seconds=60,
            max_queue_size=64,
        )  # fmt: skip
        # As the kubelet asks: a channel of this process would wait as long as those of the callers do.
        until(server.ready)

    def restart(self, number: int) -> None:
        """End a replica as Kubernetes does, and wait until its successor serves."""
        server = self._running[number]
        server.process.send_signal(signal.SIGTERM)
        try:
            assert server.process.wait(90) == 0, server.log
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {server.log[-2000:]}") from None
        assert "Traceback" not in server.log, server.log
        self.restarts += 1
        self._start(number)

    def close(self) -> None:
        for server in self._running.values():
            server.close()


@contextmanager
def our_client(fleet: Fleet) -> Iterator[Draw]:
    """Routes by style over a list of replicas."""
    with Client(Endpoints(inference=",".join(fleet.targets))) as client:
        yield lambda seed: len(
            client.generate("a hill", seeds=[seed], width=32, height=32, steps=8, timeout=120).pictures
        )


@contextmanager
def any_client(fleet: Fleet) -> Iterator[Draw]:
    """One name with several addresses, as a headless Service has: gRPC's own balancing and retries."""
    with channel(f"ipv4:{','.join(fleet.targets)}") as opened:
        stub = inference_pb2_grpc.InferenceServiceStub(opened)

        def draw(seed: int) -> int:
            events = stub.Generate(small_request(seeds=[seed], steps=8), timeout=120)
            return sum(event.HasField("done") for event in events)

        yield draw


def test_no_request_is_lost_while_every_replica_is_replaced(tmp_path: Path, tiny_base: Path) -> None:
    fleet = Fleet(tmp_path, tiny_base)
    try:
        with our_client(fleet) as routed, any_client(fleet) as balanced, ThreadPoolExecutor(CALLERS) as threads:
            numbers, answered = iter(range(10**9)), Counter[int]()
            lock, enough = threading.Lock(), threading.Event()

            def call_on_and_on(draw: Draw) -> None:
                while not enough.is_set():
                    with lock:
                        number = next(numbers)
                    got = draw(number)
                    with lock:
                        answered[got] += 1

            calling = [threads.submit(call_on_and_on, (routed, balanced)[number % 2]) for number in range(CALLERS)]
            try:
                while fleet.restarts < REPLICAS or answered.total() < REQUESTS:
                    fleet.restart(fleet.restarts % REPLICAS)
                    if any(future.done() for future in calling):
                        break
            finally:
                enough.set()
            for future in calling:
                future.result(180)
            print(f"{answered.total()} requests over {fleet.restarts} restarts")
            assert answered.total() >= REQUESTS and set(answered) == {1}
    finally:
        fleet.close()
