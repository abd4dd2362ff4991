"""What the index takes to start, and what reads of it take over gRPC, on MinIO where it was built (`make tools`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.index import publishing
from benchmarks.index.many_adapters import ALIASED_EVERY, adapter_id, fill
from benchmarks.peers.mlflow_registry import NAME as MLFLOW
from benchmarks.peers.mlflow_registry import MlflowRegistry, seeded
from benchmarks.rows import Row, Target
from benchmarks.timing import QUANTILES, two_quantiles
from scripts.tools import TOOLS, path_of
from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.grpc_client import channel
from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from terroir.store.s3 import S3Store
from terroir.tiny import BASE_DIR, BASE_ID
from tests.tools.minio_server import MinioServer

_START_SECONDS: Final = 300.0


@dataclass(frozen=True)
class _Place:
    """A store that a registry process finds by its environment."""

    store: ObjectStore
    environment: Mapping[str, str]
    name: str


def rows(bench: Bench) -> Iterator[Row]:
    """Fill a store, start on it in both ways, then read from a registry that serves it."""
    count, tail = bench.count(100_000, 2_000), bench.count(1_000, 20)
    with _place(bench.work / "index") as place:
        bench.say(f"writing {count} adapters to {place.name}")
        fill(place.store, count)
        cold = _start(place, "--snapshot", "--tail", str(tail))
        warm = _start(place)
        about = f"{count} adapters on {place.name}"
        yield bench.row(
            f"start of the index from snapshot and a tail of {tail}, {about}", "s", warm["seconds"],
            target=Target(20, cores=2), peer=cold["seconds"], peer_name="rebuild from all documents",
        )  # fmt: skip
        yield bench.row(
            f"peak memory of a process that started so, {about}", "MB", warm["peak_bytes"] / 1e6, target=Target(1_000)
        )
        yield bench.row(f"write a snapshot of the index, {about}", "s", cold["snapshot_seconds"])
        with _registry(place, bench.work) as api, MlflowRegistry(bench.work / "mlflow") as mlflow:
            bench.say(f"writing {count} models to MLflow's tables")
            mlflow.seed(count)
            yield from _reads(bench, api, count, about, mlflow)
            yield from publishing.rows(bench, api, place.store, place.name, mlflow)


def _reads(bench: Bench, api: Any, count: int, about: str, mlflow: MlflowRegistry) -> Iterator[Row]:
    def by_alias(turn: int) -> None:
        name = f"adapters/{adapter_id(ALIASED_EVERY * (turn * 7919 % (count // ALIASED_EVERY)))}@production"
        api.GetVersion(pb.GetVersionRequest(name=name), timeout=10)

    def page(conditions: pb.AdapterFilter) -> Callable[[int], None]:
        token = ""

        def call(_: int) -> None:
            nonlocal token
            request = pb.ListAdaptersRequest(page_size=100, page_token=token, filter=conditions)
            token = api.ListAdapters(request, timeout=10).next_page_token

        return call

    taken = _seconds(bench.count(2_000, 50), by_alias)
    asked = bench.count(500, 20)
    peer = two_quantiles([mlflow.by_alias(seeded(turn * 7919 % count), "production") for turn in range(asked)])
    for place, target in ((0, Target(3, cores=2)), (1, None)):
        yield bench.row(
            f"GetVersion by alias over gRPC, {QUANTILES[place]}, {about}", "ms", taken[place] * 1e3, target=target,
            peer=peer[place] * 1e3, peer_name=MLFLOW,
        )  # fmt: skip
    pages = two_quantiles([mlflow.page(100) for _ in range(bench.count(50, 5))])
    searches = {
        "all": pb.AdapterFilter(),
        "two tags": pb.AdapterFilter(tags=["tag-1", "tag-2"]),
        "a region with all below it": pb.AdapterFilter(region="regions/CN"),
        "a word that few have": pb.AdapterFilter(query="number 0009"),
        "a bound on a figure": pb.AdapterFilter(metrics=[pb.MetricBound(metric="style_similarity", minimum=0.99)]),
    }
    for what, conditions in searches.items():
        taken = _seconds(bench.count(300, 10), page(conditions))
        beside = (pages[1] * 1e3, f"{MLFLOW}, its first page") if what == "all" else (None, None)
        yield bench.row(
            f"list page of 100, {what}, p99, {about}", "ms", taken[1] * 1e3, target=Target(50, cores=2),
            peer=beside[0], peer_name=beside[1],
        )  # fmt: skip


def _seconds(count: int, call: Callable[[int], None]) -> tuple[float, float]:
    """p50 and p99 of calls one after the other, the first few left out."""
    taken = []
    for turn in range(-5, count):
        began = time.perf_counter()
        call(turn)
        if turn >= 0:
            taken.append(time.perf_counter() - began)
    return two_quantiles(taken)


def _start(place: _Place, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.index.start", *arguments]
    ended = subprocess.run(command, env=dict(place.environment), capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


@contextmanager
def _place(folder: Path) -> Iterator[_Place]:
    program = path_of(next(tool for tool in TOOLS if tool.name == "minio"))
    if not program.exists():
        environment = {**os.environ, "TERROIR_REGISTRY_DATA_DIR": str(folder / "data")}
        yield _Place(LocalStore(folder / "data"), environment, "a local folder")
        return
    server = MinioServer(str(program), folder / "minio")
    server.start()
    try:
        location = server.location()
        environment = {**os.environ, **server.settings("registry", location)}
        yield _Place(S3Store(location), environment, "MinIO")
    finally:
        server.stop()


@contextmanager
def _registry(place: _Place, work: Path) -> Iterator[Any]:
    announce = work / "index-registry.json"
    settings = {"PORT": "0", "ANNOUNCE_PATH": str(announce), "BASE_SOURCES": json.dumps({BASE_ID: str(BASE_DIR)})}
    environment = {**place.environment, **{f"TERROIR_REGISTRY_{key}": value for key, value in settings.items()}}
    running = subprocess.Popen(
        [sys.executable, "-m", "terroir.registry.main"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + _START_SECONDS
        while not announce.exists():
            if running.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the registry did not start on {place.name} (status {running.poll()})")
            time.sleep(0.05)
        port = json.loads(announce.read_text())["ports"]["grpc"]
        with channel(f"127.0.0.1:{port}") as opened:
            yield registry_pb2_grpc.RegistryServiceStub(opened)
    finally:
        running.terminate()
        running.wait(30)
