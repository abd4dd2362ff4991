"""All services with mTLS on this machine, a real Prometheus that scrapes them, and traffic of every kind."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import yaml

from terroir._proto.dataset.v1 import dataset_pb2
from terroir.client import Client, scan_folder
from terroir.client.endpoints import Endpoints
from terroir.common.credentials import CallerCredentials
from terroir.common.errors import TerroirError
from terroir.tiny import BASE_DIR
from tests.command_line import ROOT, CommandLine, base_settings, until
from tests.tools.authority import Authority
from tests.tools.minio_server import free_port
from tests.tools.prometheus_server import PrometheusServer

SERVICES: Final = ("dataset", "training", "registry", "inference")
_STYLE: Final = ROOT / "examples" / "styles" / "jiangnan-ink"
_LIFE: Final = timedelta(days=90)
_CALLS_PER_SECOND: Final = 20
_CROWD: Final = 16
_BLOCKED: Final = "unspeakable"
_CONFIG: Final = """
dataset: datasets/ink
lora_rank: 4
batch_size: 4
max_train_steps: 4
save_steps: 4
"""


@dataclass
class Watched:
    """The services and what watches them."""

    folder: Path
    authority: Authority
    prometheus: PrometheusServer
    metrics_ports: dict[str, int]

    @classmethod
    def prepared(cls, folder: Path, prometheus: PrometheusServer) -> Watched:
        """Certificates, grants and pictures are there; nothing runs."""
        authority = Authority()
        grants = [
            {"principals": [f"cert:terroir-{service}" for service in SERVICES], "roles": ["service"]},
            {"principals": ["cert:ana"], "roles": ["operator"]},
            {"principals": ["cert:vi"], "roles": ["viewer"]},
        ]
        (folder / "access.yaml").write_text(yaml.safe_dump({"grants": grants}))
        pictures = folder / "pictures"
        pictures.mkdir()
        for path in [*sorted(_STYLE.glob("*.png"))[:4], _STYLE / "metadata.csv"]:
            shutil.copy(path, pictures)
        (pictures / "broken.png").write_text("no picture")
        bare = folder / "bare"
        bare.mkdir()
        shutil.copy(_STYLE / "05.png", bare)
        return cls(folder, authority, prometheus, {service: free_port() for service in SERVICES})

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def environment(self) -> dict[str, str]:
        """Of the `terroir up`."""
        supervisor = self.authority.write(self.folder / "supervisor", "supervisor", life=_LIFE)
        told = base_settings(BASE_DIR) | {"TERROIR_TLS_DIR": str(supervisor)}
        for service in SERVICES:
            own, shown = f"TERROIR_{service.upper()}", self.folder / service
            told[f"{own}_TLS_DIR"] = str(self.authority.write(shown, f"terroir-{service}", life=_LIFE))
            told[f"{own}_ACCESS_PATH"] = str(self.folder / "access.yaml")
            told[f"{own}_METRICS_PORT"] = str(self.metrics_ports[service])
        told["TERROIR_DATASET_RATE_LIMIT_CALLS_PER_SECOND"] = str(_CALLS_PER_SECOND)
        told["TERROIR_INFERENCE_BLOCKED_WORDS"] = f'["{_BLOCKED}"]'
        return told

    def targets(self) -> dict[str, list[str]]:
        """Jobs as the chart names them."""
        return {f"terroir-{service}": [f"127.0.0.1:{port}"] for service, port in self.metrics_ports.items()}

    def person(self, name: str) -> CommandLine:
        """Commands with this person's certificate."""
        return CommandLine(self.data_dir, extra={"TERROIR_TLS_DIR": str(self._shown(name))})

    def client(self, name: str) -> Client:
        """A recommender with this person's certificate."""
        return Client(Endpoints.discover(self.data_dir), CallerCredentials(self._shown(name)))

    def _shown(self, name: str, authority: Authority | None = None) -> Path:
        return (authority or self.authority).write(self.folder / name, name, life=_LIFE)

    def make_traffic(self) -> None:
        """The main job, and what goes wrong around it."""
        with self.client("ana") as client:
            for name, folder in (("ink", "pictures"), ("bare", "bare")):
                client.datasets.create(name, dataset_pb2.Dataset(rights_statement="drawn by this project"))
                list(client.datasets.import_pictures(f"datasets/{name}", scan_folder(self.folder / folder)))
            list(client.datasets.caption("datasets/bare"))
            client.datasets.freeze("datasets/ink")
            list(client.training.watch(client.training.create("adapters/ink", _CONFIG).name))
            for priority in ("high", "normal", "background"):
                client.generate("a red teapot", adapters={"ink": 0.8}, seeds=[1], steps=2, priority=priority)
            _fails(lambda: client.generate("a red teapot", adapters={"nowhere": 1.0}, steps=2))
            _fails(lambda: client.generate(f"an {_BLOCKED} teapot", steps=2))
            self._miss_deadlines(client)
            self._ask_for_covers(client)
            client.registry.set_alias("adapters/ink", "production", "adapters/ink/versions/1", reason="drawn with")
        (self.folder / "garbage.safetensors").write_bytes(b"garbage")
        self.person("ana").run(
            "adapter", "publish", "junk", str(self.folder / "garbage.safetensors"), "--base", "terroir-tiny", status=1
        )
        self._be_refused()

    def _miss_deadlines(self, client: Client) -> None:
        """A crowd each of whom would be in time alone: some are declined or too late, whatever the machine."""

        def draw(timeout: float) -> None:
            client.generate("a red teapot", seeds=[1, 2, 3, 4], steps=30, timeout=timeout)

        draw(300.0)
        began = time.monotonic()
        draw(300.0)
        alone = time.monotonic() - began
        with ThreadPoolExecutor(_CROWD) as crowd:
            for _ in range(_CROWD):
                crowd.submit(_fails, lambda: draw(1.5 * alone))

    def _ask_for_covers(self, client: Client) -> None:
        """One that is there, one that is stale and is drawn anew, one that nobody knows."""
        for _ in client.covers.watch(client.covers.prepare({"post": "a red teapot"}, [""], variants=1).name):
            pass
        client.covers.get("post", timeout=10.0)
        client.covers.invalidate(["post"])
        client.covers.get(["post", "nobody"], timeout=10.0)

    def _be_refused(self) -> None:
        with self.client("vi") as client:
            _fails(lambda: client.generate("a red teapot", steps=2))
            for _ in range(200):
                _fails(lambda: list(client.datasets.list()))
        stranger = CallerCredentials(self._shown("stranger", Authority("another")))
        with Client(Endpoints.discover(self.data_dir), stranger) as client:
            _fails(lambda: client.registry.adapter("ink"))

    def wait_for(self, expression: str) -> None:
        """Until Prometheus answers something."""
        until(lambda: self.prometheus.query(expression), timeout=60)


def _fails(call: Callable[[], object]) -> None:
    with suppress(TerroirError):
        call()
