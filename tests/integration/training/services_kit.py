"""The real dataset, registry and training services over one folder, as processes joined by TCP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from terroir.client.datasets import Datasets
from terroir.client.registry import Registry
from terroir.client.training import Training


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
