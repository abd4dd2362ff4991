"""Start-up of all services, and adapter files through the registry."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors.numpy import load, load_file

from benchmarks import adapters
from benchmarks.bench import Bench
from benchmarks.compatibility import speed
from benchmarks.index import measure
from benchmarks.rows import Row, Target
from benchmarks.timing import in_turns
from terroir.client import Client
from terroir.embedded import Embedded

_PEER = "file copy and safetensors parse"
_CONTROL = ("registry", "dataset", "training")
_SIZE_BYTES = 1024 * 1024


class _StartClock:
    """Hears from Embedded of each service that listens, and finds out when it serves."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inference_began = 0.0
        self.running: Embedded | None = None

    def ready(self, name: str, seconds: float) -> None:
        heard = time.monotonic()
        if name in _CONTROL and self.running is not None:
            self.running.wait_until_serving(name, 30)
            self.seconds[name] = seconds + time.monotonic() - heard
        elif name == "inference":  # its engine is still loading; waiting here would delay the others
            self.inference_began = heard - seconds


def rows(bench: Bench) -> Iterator[Row]:
    """Start the services on an empty folder, then publish and download."""
    clock = _StartClock()
    running = clock.running = Embedded(bench.work / "data", on_ready=clock.ready)
    with running, Client(running.endpoints) as client:
        for name in _CONTROL:
            yield bench.row(
                f"start of {name} to SERVING, empty folder", "s", clock.seconds[name], target=Target(2, cores=2)
            )
        running.wait_until_serving("inference", 120)
        yield bench.row(
            "start of inference to SERVING, tiny base loaded", "s", time.monotonic() - clock.inference_began,
            target=Target(12, cores=2),
        )  # fmt: skip
        yield from _transfers(bench, client)
    yield from speed.rows(bench)
    yield from measure.rows(bench)


def _transfers(bench: Bench, client: Client) -> Iterator[Row]:
    table = adapters.base_key_table()
    count = bench.count(30, 4)
    files = [adapters.of_size(table, seed, _SIZE_BYTES) for seed in range(count + 1)]
    sources = [_written(bench.work / f"source-{turn}.safetensors", data) for turn, data in enumerate(files)]
    versions = [adapters.publish(client, "warm-up", files[count])]
    size = f"{len(files[0]) / 2**20:.2f} MiB"

    def copy(turn: int) -> None:
        target = sources[turn].with_suffix(".copy")
        shutil.copyfile(sources[turn], target)
        load_file(target)

    published = in_turns(count, lambda turn: versions.append(adapters.publish(client, "speed", files[turn])), copy)
    yield bench.row(
        f"publish an adapter of {size} over gRPC, p50", "ms", published.ours * 1e3, peer=published.peer * 1e3,
        peer_name=_PEER,
    )  # fmt: skip
    fetched = in_turns(count, lambda turn: load(client.registry.download(versions[turn]).data), copy)
    yield bench.row(
        f"download an adapter of {size} over gRPC and parse it, p50", "ms", fetched.ours * 1e3, peer=fetched.peer * 1e3,
        peer_name=_PEER,
    )  # fmt: skip


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
