"""Eight requests at once, each in a stack of its own, and what other calls feel of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import adapters, rpc_latency
from benchmarks.bench import Bench
from benchmarks.peers.diffusers_pipeline import DiffusersPipeline
from benchmarks.rows import Row, Target
from terroir.client import Client
from terroir.demo.plan import PROMPTS
from terroir.tiny import BASE_DIR, NATIVE_SIDE

_REQUESTS = 8
_STEPS = 20
_GUIDANCE = 3.0
_WHAT = f"8 concurrent requests, 8 different 2-adapter stacks, {NATIVE_SIDE}×{NATIVE_SIDE}, {_STEPS} steps, guidance"


def rows(bench: Bench, client: Client, threads: int) -> Iterator[Row]:
    """Pictures a second; weights are new in each turn, so that merging is paid for each time."""
    serial, together = DiffusersPipeline(BASE_DIR, threads), DiffusersPipeline(BASE_DIR, threads)
    names = list(_published(client, serial, bench.work))

    def ours(turn: int) -> None:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            list(pool.map(lambda index: _draw(client, names, index, turn), range(_REQUESTS)))

    def one_by_one(turn: int) -> None:
        for index in range(_REQUESTS):
            serial.wear(_stack(names, index, turn))
            serial.draw(_prompt(index), [index], side=NATIVE_SIDE, steps=_STEPS, guidance=_GUIDANCE)

    def in_one_call(_turn: int) -> None:
        prompts = [_prompt(index) for index in range(_REQUESTS)]
        together.draw_together(prompts, 1, side=NATIVE_SIDE, steps=_STEPS, guidance=_GUIDANCE)

    taken = _in_turns(bench.count(5, 1), (ours, one_by_one, in_one_call))
    rates = [_REQUESTS / seconds for seconds in taken]
    yield bench.row(
        f"{_WHAT}, over gRPC, p50", "pictures/s", rates[0], peer=rates[1],
        peer_name="diffusers one by one, set_adapters", target=Target(at_least=2.5, judged="ratio", cores=2),
    )  # fmt: skip
    yield bench.row(
        f"{_WHAT}, over gRPC, against one bare batch, p50", "pictures/s", rates[0], peer=rates[2],
        peer_name="one diffusers call of batch 8 without adapters",
        target=Target(at_least=0.85, judged="ratio", cores=2),
    )  # fmt: skip


def latency_rows(bench: Bench, target: str) -> Iterator[Row]:
    """Other calls beside eight drawings."""
    found = rpc_latency.measure(target, generations=_REQUESTS, seconds=bench.count(20, 2))
    yield bench.row(
        "health and metadata calls while 8 requests draw with previews, slowest method's p99", "ms", found.p99,
        target=Target(at_most=50, cores=2),
    )  # fmt: skip


def _published(client: Client, peer: DiffusersPipeline, work: Path) -> Iterator[str]:
    table = adapters.base_key_table()
    for seed in range(_REQUESTS):
        name, data = f"bench-style-{seed}", adapters.everywhere(table, seed)
        adapters.publish(client, name, data)
        path = work / f"{name}.safetensors"
        path.write_bytes(data)
        peer.load(name, path)
        yield name


def _stack(names: Sequence[str], index: int, turn: int) -> dict[str, float]:
    return {names[index]: 0.6 + turn / 100, names[(index + 1) % len(names)]: 0.4}


def _prompt(index: int) -> str:
    return PROMPTS[index % len(PROMPTS)]


def _draw(client: Client, names: Sequence[str], index: int, turn: int) -> None:
    client.generate(
        _prompt(index), adapters=_stack(names, index, turn), seeds=[index], width=NATIVE_SIDE, height=NATIVE_SIDE,
        steps=_STEPS, guidance_scale=_GUIDANCE,
    )  # fmt: skip


def _in_turns(count: int, sides: Sequence[Callable[[int], None]]) -> list[float]:
    """Median seconds of each side; one warm-up turn first, and who begins alternates."""
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(count + 1):
        order = list(enumerate(sides))
        for number, side in order if turn % 2 == 0 else reversed(order):
            since = time.perf_counter()
            side(turn)
            if turn:
                taken[number].append(time.perf_counter() - since)
    return [statistics.median(seconds) for seconds in taken]
