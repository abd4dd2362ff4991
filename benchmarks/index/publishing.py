"""Publishing a 6 MB adapter: beside the bare PUT of the same bytes, and beside MLflow."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks import adapters
from benchmarks.bench import Bench
from benchmarks.peers.mlflow_registry import NAME as MLFLOW
from benchmarks.peers.mlflow_registry import MlflowRegistry
from benchmarks.rows import Row, Target
from benchmarks.timing import QUANTILES, two_quantiles
from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.store.interface import ObjectStore
from terroir.tiny import BASE_ID

_SIZE_BYTES: Final = 6_000_000
_CHUNK_BYTES: Final = 512 * 1024


def rows(bench: Bench, api: Any, store: ObjectStore, place: str, mlflow: MlflowRegistry) -> Iterator[Row]:
    """The three in turns, each file new to all of them."""
    table = adapters.base_key_table()
    count = bench.count(40, 4)
    ours: list[float] = []
    bare: list[float] = []
    theirs: list[float] = []
    for turn in range(-2, count):
        data = adapters.of_size(table, 10_000 + turn, _SIZE_BYTES)
        file = Path(bench.work / "publish.safetensors")
        file.write_bytes(data)
        taken = (
            _seconds(lambda data=data: _publish(api, data)),  # type: ignore[misc]
            _seconds(lambda data=data: store.create(f"bench/{uuid.uuid4().hex}", data)),  # type: ignore[misc]
            mlflow.publish("bench", file),
        )
        if turn >= 0:  # the first two warm all sides
            for each, kept in zip(taken, (ours, bare, theirs), strict=True):
                kept.append(each)
    size = f"{_SIZE_BYTES / 1e6:.0f} MB"
    for index, name in enumerate(QUANTILES):
        yield bench.row(
            f"publish an adapter of {size} over gRPC, {name}, on {place}", "ms", two_quantiles(ours)[index] * 1e3,
            peer=two_quantiles(bare)[index] * 1e3, peer_name="bare obstore PUT of the same bytes",
            target=Target(3, judged="ratio", cores=2) if name == "p50" else None,
        )  # fmt: skip
        yield bench.row(
            f"publish an adapter of {size} over gRPC, {name}, on {place}, beside MLflow", "ms",
            two_quantiles(ours)[index] * 1e3, peer=two_quantiles(theirs)[index] * 1e3,
            peer_name=f"{MLFLOW}, file copied to a local folder",
        )  # fmt: skip


def _publish(api: Any, data: bytes) -> None:
    header = pb.PublishHeader(
        adapter="adapters/bench", base=f"bases/{BASE_ID}", size_bytes=len(data),
        file_digest=hashlib.sha256(data).hexdigest(), request_id=str(uuid.uuid4()),
    )  # fmt: skip

    def messages() -> Iterator[pb.PublishVersionRequest]:
        yield pb.PublishVersionRequest(header=header)
        for start in range(0, len(data), _CHUNK_BYTES):
            yield pb.PublishVersionRequest(chunk=data[start : start + _CHUNK_BYTES])

    api.PublishVersion(messages(), timeout=60)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
