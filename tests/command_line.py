"""The real command line over real services: each command is a process, as it is for people."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from terroir._proto.dataset.v1 import dataset_pb2
from terroir.client import Client, Endpoints, scan_folder

ROOT = Path(__file__).resolve().parents[1]
STYLE = ROOT / "examples" / "styles" / "jiangnan-ink"
TERROIR = (sys.executable, "-m", "terroir.cli.main")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment with the source found, and without settings of a terroir that runs beside the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TERROIR_")}
    return {**clean, "PYTHONPATH": str(ROOT / "services"), **(extra or {})}


def base_settings(base: Path) -> dict[str, str]:
    """Settings of the services for another base model under the default base's name."""
    sources = json.dumps({"terroir-tiny": str(base)})
    return {
        "TERROIR_REGISTRY_BASE_SOURCES": sources,
        "TERROIR_TRAINING_BASE_SOURCES": sources,
        "TERROIR_INFERENCE_BASE_MODEL": str(base),
    }


def left_behind(data_dir: Path) -> list[psutil.Process]:
    """Processes that were told of this folder by a `terroir up`: services, engines, Ray and its workers."""
    found = []
    for process in psutil.process_iter():
        try:
            told = {value for name, value in process.environ().items() if name.endswith("_DATA_DIR")}
            if str(data_dir) in told and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@dataclass
class Up:
    """A `terroir up` in a process of its own."""

    data_dir: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ("--free-ports",)
    process: subprocess.Popen[str] = field(init=False)

    def begin(self) -> Up:
        """Start it and return at once."""
        command = [*TERROIR, "--json", "up", "--data-dir", str(self.data_dir), *self.options]
        self.process = subprocess.Popen(
            command, env=environment(self.extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self

    def ready(self) -> dict[str, Any]:
        """Wait for what it prints when everything serves."""
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                return dict(json.loads("".join(lines)))
        assert self.process.stderr is not None
        raise AssertionError(f"terroir up ended: {''.join(lines)}{self.process.stderr.read()}")

    def wait_for(self, path: str) -> None:
        """Wait until a file below the folder exists."""
        until(lambda: (self.data_dir / path).exists() or self.process.poll() is not None)

    def end(self, number: int, timeout: float = 90) -> tuple[int, str]:
        """Send a signal; exit status and standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors

    def __enter__(self) -> Up:
        return self.begin()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGTERM)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class CommandLine:
    """Commands against the `terroir up` on a folder."""

    data_dir: Path
    pids: Mapping[str, int] = field(default_factory=dict)
    """Processes of the services."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Environment of every command."""

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """A command that must end with `status`."""
        command = [*TERROIR, "--data-dir", str(self.data_dir), *arguments]
        done = subprocess.run(
            command, env=environment(self.extra), capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == status, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.run("--json", *arguments).stdout)


@contextmanager
def client_of(data_dir: Path) -> Iterator[Client]:
    """A client in this process, where commands are not what is tested: each of them costs half a second to start."""
    with Client(Endpoints.discover(data_dir)) as client:
        yield client


def submit(client: Client, pictures: Path, config: str) -> str:
    """A job for `adapters/ink` on a frozen `datasets/ink` of four drawn pictures, which go to the folder."""
    pictures.mkdir()
    for path in [*sorted(STYLE.glob("*.png"))[:4], STYLE / "metadata.csv"]:
        shutil.copy(path, pictures)
    client.datasets.create("ink", dataset_pb2.Dataset(rights_statement="drawn by this project"))
    list(client.datasets.import_pictures("datasets/ink", scan_folder(pictures)))
    client.datasets.freeze("datasets/ink")
    return client.training.create("adapters/ink", config).name


def until(condition: Any, timeout: float = 60, pause: float = 0.05) -> None:
    """Poll a condition that other processes make true; with a longer pause if to ask takes a process of its own."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(pause)
