"""Adapters on their way into the server: named in a request for the first time, and published elsewhere."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks import adapters
from benchmarks.bench import Bench
from benchmarks.minio_place import NOT_BUILT, minio_server
from benchmarks.peers.bare_s3 import BareS3
from benchmarks.rows import Row, Target
from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.inference.engine.pipeline.model import Model
from terroir.store.s3 import S3Location
from terroir.tiny import BASE_DIR, NATIVE_SIDE
from tests.integration.inference.hot_load_kit import Followed, Replica
from tests.integration.inference.inference_process import inference_process
from tests.tools.minio_server import MinioServer

_SIZE_BYTES = 6 * 1024 * 1024
_FIRST_USE = "6 MiB adapter on MinIO, never seen, named in a request: sent → first tick that wears it, p50"
_FIRST_USE_BEGINS = "the same until that tick begins: until its step is told, less the time to the next one's, p50"
_LONGEST = "longest tick of a running request while such adapters join, against its median tick"
_WATCH = "publish on another registry replica → resident by the watch"


def rows(bench: Bench) -> Iterator[Row]:
    """On MinIO, with two registry replicas: the server follows one, adapters are published at the other."""
    with minio_server(bench.work / "minio") as server:
        if server is None:
            for figure in (_FIRST_USE, _FIRST_USE_BEGINS, _LONGEST, _WATCH):
                yield bench.row(figure, "s", None, reason=NOT_BUILT)
            return
        count = bench.count(9, 2)
        table = adapters.base_key_table()
        files = [adapters.of_size(table, seed, _SIZE_BYTES) for seed in range(count)]
        with _Rig(bench.work / "rig", server) as rig:
            names = [rig.publisher.publish(f"unseen-{turn}", data) for turn, data in enumerate(files)]
            rig.serve()  # only now, so that nothing heard of them
            yield from _first_use(bench, rig, names, _bare_get(server.location(), files))
            yield from _watch(bench, rig)


class _Rig(ExitStack):
    """Two registry processes on one bucket, and an inference process that follows the second."""

    def __init__(self, folder: Path, server: MinioServer) -> None:
        super().__init__()
        folder.mkdir()
        self._folder = folder
        settings = server.settings("registry", server.location())
        self.publisher, self.followed = (Replica(folder / "data", BASE_DIR, settings) for _ in range(2))
        for replica in (self.publisher, self.followed):
            replica.start()
            self.callback(replica.kill)

    def serve(self) -> None:
        """Start inference and wait until it watches."""
        started = inference_process(self._folder, BASE_DIR, threads=2, registry_target=self.followed.target)
        _, self.inference = self.enter_context(started)
        self.all = Followed(self.publisher, self.followed, self.inference)
        while not self.all.watching():
            time.sleep(0.01)


@dataclass
class _Running:
    """A long request whose ticks are timed on a thread of its own."""

    rig: _Rig

    def __post_init__(self) -> None:
        self.times: list[float] = []
        self._call = self.rig.inference.stub.Generate(
            pb.GenerateRequest(prompt="a long one", seeds=[0], steps=150, width=NATIVE_SIDE, height=NATIVE_SIDE),
            timeout=600,
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        while len(self.times) < 3:
            time.sleep(0.01)

    def _read(self) -> None:
        for event in self._call:
            if event.HasField("step"):
                self.times.append(time.perf_counter())

    def ended(self) -> list[float]:
        """Wait for it; seconds between its steps."""
        self._thread.join()
        return [after - before for before, after in pairwise(self.times)]


def _first_use(bench: Bench, rig: _Rig, names: list[str], get_seconds: float) -> Iterator[Row]:
    for seed in range(2):  # warm up both batch sizes
        rig.inference.generate(seeds=[seed, seed + 1], steps=3, width=NATIVE_SIDE, height=NATIVE_SIDE)
    running, ticks, taken, begun = _Running(rig), list[float](), list[float](), list[float]()
    for turn, name in enumerate(names):
        if not running._thread.is_alive():
            ticks += running.ended()
            running = _Running(rig)
        request = pb.GenerateRequest(
            prompt=f"a boat {turn}",
            seeds=[turn],
            steps=12,
            adapters=[pb.AdapterWeight(adapter=name)],
            width=NATIVE_SIDE,
            height=NATIVE_SIDE,
        )
        began, steps = time.perf_counter(), list[float]()
        for event in rig.inference.stub.Generate(request, timeout=120):
            if event.HasField("step"):
                steps.append(time.perf_counter() - began)
            if event.HasField("done") and event.done.adapters[0].found != pb.TIER_REGISTRY:
                raise RuntimeError(f"{name} was here before anybody asked, so this measures nothing")
        taken.append(steps[0])
        begun.append(steps[0] - (steps[1] - steps[0]))
    ticks += running.ended()
    encoding, tick = _text_encoding_seconds(), statistics.median(ticks)
    bound = 3 * get_seconds + encoding + 2 * tick
    made_of = (
        f"3 × its bare GET by obstore ({1e3 * get_seconds:.0f} ms) + text encoding ({1e3 * encoding:.0f} ms) "
        f"+ 2 ticks ({1e3 * tick:.0f} ms)"
    )
    yield bench.row(
        _FIRST_USE, "s", statistics.median(taken), peer=bound, peer_name=made_of,
        target=Target(at_most=1, judged="ratio", cores=2),
    )  # fmt: skip
    yield bench.row(_FIRST_USE_BEGINS, "s", statistics.median(begun), peer=bound, peer_name="the same bound")
    yield bench.row(
        _LONGEST, "ms", 1e3 * max(ticks), peer=1e3 * tick, peer_name="its median tick",
        target=Target(at_most=2, judged="ratio", cores=2),
    )  # fmt: skip


def _watch(bench: Bench, rig: _Rig) -> Iterator[Row]:
    table = adapters.base_key_table()
    count = bench.count(20, 2)
    taken = [
        rig.all.publish_until_resident(f"watched-{turn}", adapters.of_size(table, 100 + turn, 256 * 1024))[1]
        for turn in range(count)
    ]
    yield bench.row(f"{_WATCH}, p50 of {count}", "s", statistics.median(taken))
    yield bench.row(f"{_WATCH}, slowest of {count}", "s", max(taken), target=Target(1.5))


def _bare_get(location: S3Location, files: list[bytes]) -> float:
    """Median seconds of reading such a file from the same MinIO, nothing else running."""
    bare = BareS3(location)
    for number, data in enumerate(files):
        bare.put(f"bare/{number}", data)
    taken = []
    for number in [*range(len(files))] * 3:
        began = time.perf_counter()
        bare.get(f"bare/{number}")
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _text_encoding_seconds() -> float:
    """Of a prompt and a negative prompt that were not kept, nothing else running."""
    model, taken = Model(str(BASE_DIR)), []
    for turn in range(7):
        began = time.perf_counter()
        with torch.inference_mode():
            model.condition(f"a boat {turn}", f"grey {turn}", count=1, width=64, height=64, wearing=())
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
