"""An inference server as a process of its own: signals, vanishing clients, many clients, and its metrics."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from grpc_health.v1 import health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from terroir._proto.inference.v1 import inference_pb2_grpc
from terroir.common.grpc_client import channel
from tests.command_line import environment
from tests.integration.inference.inference_server import RunningInference, until
from tests.tools.minio_server import free_port


class InferenceProcess:
    """`python -m terroir.inference.main` on free ports."""

    def __init__(self, folder: Path, base: Path, **settings: object) -> None:
        """`settings` by their names, over small ones."""
        self._announced = folder / "announced.json"
        self._log = folder / "inference.log"
        own = {
            "data_dir": folder / "data", "port": 0, "metrics_port": free_port(), "base": "tiny", "base_model": base,
            "threads": 1, "announce_path": self._announced, "registry_target": f"127.0.0.1:{free_port()}",
            **settings,
        }  # fmt: skip
        told = {f"TERROIR_INFERENCE_{name.upper()}": str(value) for name, value in own.items()}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "terroir.inference.main"], env=environment(told), stdout=log, stderr=log
            )
        try:
            until(lambda: self._announced.exists() or self.process.poll() is not None)
            assert self.process.poll() is None, self.log
            ports = json.loads(self._announced.read_text())["ports"]
        except BaseException:
            self.process.kill()
            raise
        self.target = f"127.0.0.1:{ports['grpc']}"
        self._watched = f"http://127.0.0.1:{ports['metrics']}"

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text(errors="replace")

    def metric(self, name: str, **labels: str) -> float:
        """A sample's value, 0 if there is none; labels that are not given add up."""
        with urllib.request.urlopen(f"{self._watched}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def ready(self) -> bool:
        """What /readyz says."""
        try:
            with urllib.request.urlopen(f"{self._watched}/readyz", timeout=10):
                return True
        except urllib.error.HTTPError:
            return False

    def at_rest(self) -> bool:
        """Whether nothing draws, waits, or is listened to."""
        names = ("active_requests", "queue_depth", "engine_jobs")
        return not any(self.metric(f"terroir_inference_{name}") for name in names)

    def resident_bytes(self) -> int:
        """Memory of the server and its engine."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(process.memory_info().rss for process in family)

    def terminate(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)


@contextmanager
def inference_process(
    folder: Path, base: Path, **settings: object
) -> Iterator[tuple[InferenceProcess, RunningInference]]:
    """A server that serves, and a client of it."""
    server = InferenceProcess(folder, base, **settings)
    try:
        with channel(server.target) as opened:
            calls = RunningInference(
                inference_pb2_grpc.InferenceServiceStub(opened), health_pb2_grpc.HealthStub(opened)
            )
            calls.wait_until_serving()
            yield server, calls
    finally:
        server.close()
