"""The trace against a real registry and a real inference server: errors, memory, hits by tier, and hidden loads."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import numpy as np

from benchmarks import adapters
from benchmarks.katz.trace import Trace
from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.tiny import BASE_DIR
from tests.integration.inference.hot_load_kit import Replica
from tests.integration.inference.inference_process import InferenceProcess, inference_process
from tests.integration.inference.inference_server import RunningInference

CLIENTS: Final = 16
"""Twice as many as may draw at once, so that half of them wait and loads can hide."""
SIDE: Final = 32
STEPS: Final = 2
"""Few and without guidance, for a useful rate of requests on a CPU."""
_LAYERS: Final = ("attn1.to_q", "attn1.to_v")
_HOST_SHARE: Final = 0.1
_DEVICE_SHARE: Final = 0.02
_MIB: Final = 1024 * 1024
_SAMPLE_SECONDS: Final = 1.0


@dataclass
class Report:
    """What the load did."""

    seconds: float
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    found: Counter[int] = field(default_factory=Counter)
    """Wanted adapters by the tier in which they were found (numbers of the contract)."""
    load_seconds: float = 0.0
    hidden_seconds: float = 0.0
    memory: list[float] = field(default_factory=list)
    """MiB of server and engine, once a second."""

    def share(self, *tiers: int) -> float:
        """Of wanted adapters, those found in these tiers."""
        return sum(self.found[tier] for tier in tiers) / max(1, sum(self.found.values()))

    @property
    def hidden_share(self) -> float:
        """Of the seconds that requests' adapters took to load, those in which the request had to wait anyway."""
        return self.hidden_seconds / self.load_seconds if self.load_seconds else 1.0

    @property
    def growth(self) -> float:
        """MiB by which memory grew from the second tenth of the run to the last."""
        tenth = max(1, len(self.memory) // 10)
        return statistics.median(self.memory[-tenth:]) - statistics.median(self.memory[tenth : 2 * tenth])


def run(folder: Path, count: int, seconds: float, say: Callable[[str], None] = print) -> Report:
    """Publish small adapters, start a server whose memories hold a tenth and a fiftieth of them, drive it."""
    with _rig(folder, count, say) as (server, calls):
        return _drive(server, calls, count, seconds)


@contextmanager
def _rig(folder: Path, count: int, say: Callable[[str], None]) -> Iterator[tuple[InferenceProcess, RunningInference]]:
    registry = Replica(folder / "data", BASE_DIR)
    registry.start()
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            for done, _ in enumerate(
                pool.map(lambda number: registry.publish(_name(number), _file(number)), range(count))
            ):
                if done % 1000 == 999:
                    say(f"{done + 1} of {count} adapters published ({time.monotonic() - began:.0f} s)")
        size = len(_file(0))
        budgets = {
            "adapter_memory_bytes": max(_MIB, int(_HOST_SHARE * count * size)),
            "adapter_device_bytes": max(_MIB, int(_DEVICE_SHARE * count * size)),
            "adapter_disk_bytes": max(_MIB, count * size // 2),
            "merged_memory_bytes": 64 * _MIB,  # full soon, so that growth afterwards would be a leak
        }
        with inference_process(folder, BASE_DIR, threads=2, registry_target=registry.target, **budgets) as server:
            yield server
    finally:
        registry.kill()


def _drive(server: InferenceProcess, calls: RunningInference, count: int, seconds: float) -> Report:
    report, lock, ended = Report(seconds), threading.Lock(), threading.Event()
    trace, numbers = iter(Trace(7, adapters=count)), itertools.count()

    def draw() -> None:
        while not ended.is_set():
            with lock:
                worn, number = next(trace), next(numbers)
            try:
                done = calls.generate(
                    prompt=f"a boat {number % 200}", seeds=[number], width=SIDE, height=SIDE, steps=STEPS,
                    guidance_scale=1,
                    adapters=[pb.AdapterWeight(adapter=f"adapters/{_name(adapter)}", weight=0.7) for adapter in worn],
                ).done  # fmt: skip
            except grpc.RpcError as error:
                with lock:
                    report.errors[str(error.code())] += 1
                continue
            with lock:
                report.requests += 1
                report.found.update(adapter.found for adapter in done.adapters)
                report.load_seconds += done.load_seconds
                report.hidden_seconds += done.hidden_load_seconds

    threads = [threading.Thread(target=draw) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(_SAMPLE_SECONDS, seconds / 20))
        report.memory.append(server.resident_bytes() / _MIB)
    ended.set()
    for thread in threads:
        thread.join()
    return report


def _name(number: int) -> str:
    return f"katz-{number}"


def _file(number: int) -> bytes:
    """Rank 1 on two of the attention's layers, a few kilobytes."""
    chance = np.random.default_rng(number)
    modules = {
        layer: LoraModule(
            chance.standard_normal((1, shape[1]), dtype=np.float32) * np.float32(0.1),
            chance.standard_normal((shape[0], 1), dtype=np.float32) * np.float32(0.1),
            alpha=1.0,
        )
        for layer, shape in adapters.base_key_table().items()
        if layer.endswith(_LAYERS)
    }
    return to_kohya(Adapter(modules), {})
