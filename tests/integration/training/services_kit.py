"""The real dataset, registry and training services over one folder, as processes joined by TCP."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.training.v1 import training_pb2 as pb
from terroir.client.datasets import Datasets, scan_folder
from terroir.client.registry import Registry
from terroir.client.training import Training

EXAMPLE = Path(__file__).parents[3] / "examples" / "styles" / "jiangnan-ink"
CONFIG = "dataset: datasets/ink\nlora_rank: 2\nresolution: 32\nbatch_size: 2\nlearning_rate: 1.0e-3\nsave_steps: 4\n"


@dataclass
class Services:
    """Started services; `restart` and `kill` act on the training service alone."""

    data_dir: Path
    base: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def start(self, name: str) -> None:
        announce = self.data_dir / f"{name}.json"
        announce.unlink(missing_ok=True)
        prefix = f"TERROIR_{name.upper()}_"
        settings = {
            f"{prefix}PORT": "0",
            f"{prefix}DATA_DIR": str(self.data_dir),
            f"{prefix}ANNOUNCE_PATH": str(announce),
        }
        if name in ("registry", "training"):
            settings[f"{prefix}BASE_SOURCES"] = json.dumps({"terroir-tiny": str(self.base)})
        if name == "dataset":
            settings[f"{prefix}GATES__MINIMUM_SIDE"] = "64"
        if name == "training":
            settings[f"{prefix}DATASET_TARGET"] = f"127.0.0.1:{self.ports['dataset']}"
            settings[f"{prefix}REGISTRY_TARGET"] = f"127.0.0.1:{self.ports['registry']}"
            settings |= self.extra
        with (self.data_dir / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", f"terroir.{name}.main"]
            process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
        self.processes[name] = process
        until = time.monotonic() + 30
        while not announce.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.data_dir / f"{name}.log").read_text())
            time.sleep(0.05)
        self.ports[name] = json.loads(announce.read_text())["ports"]["grpc"]

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(timeout=60)

    @contextlib.contextmanager
    def training(self) -> Iterator[Training]:
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['training']}") as channel:
            yield Training(channel)

    @contextlib.contextmanager
    def datasets(self) -> Iterator[Datasets]:
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['dataset']}") as channel:
            yield Datasets(channel)

    @contextlib.contextmanager
    def registry(self) -> Iterator[Registry]:
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['registry']}") as channel:
            yield Registry(channel)

    def until_step(self, name: str, step: int) -> pb.Job:
        """A job once it has made so many steps."""
        with self.training() as training:
            for job in training.watch(name):
                if job.progress.step >= step:
                    return job
        raise AssertionError(f"{name} ended before step {step}: {job}")

    def processes_left(self) -> list[int]:
        """Processes that name this folder, which belong to its Ray."""
        every = psutil.process_iter(["cmdline"])
        return [p.pid for p in every if any(str(self.data_dir) in c for c in p.info["cmdline"] or ())]


@contextlib.contextmanager
def trained_services(folder: Path, base: Path, extra: Mapping[str, str] | None = None) -> Iterator[Services]:
    """All three, with the frozen dataset of CONFIG; when they have stopped, no process of their Ray is left."""
    services = Services(folder, base, extra or {})
    try:
        for name in ("dataset", "registry", "training"):
            services.start(name)
        make_dataset(services, folder / "pictures")
        yield services
    finally:
        services.stop()
        left = services.processes_left()
        assert not left, "a stopped service leaves no process of its Ray behind"


def make_dataset(services: Services, pictures: Path) -> None:
    """Five pictures, frozen as `datasets/ink/versions/1`."""
    pictures.mkdir()
    for path in sorted(EXAMPLE.glob("*.png"))[:5]:
        shutil.copy(path, pictures)
    shutil.copy(EXAMPLE / "metadata.csv", pictures)
    with services.datasets() as datasets:
        datasets.create("ink", dataset_pb2.Dataset(trigger_word="ink style", rights_statement="Drawn for this test."))
        list(datasets.import_pictures("datasets/ink", scan_folder(pictures)))
        datasets.freeze("datasets/ink")
