"""Single requests over gRPC against diffusers in the same run, on the same weights and as many threads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import adapters
from benchmarks.bench import Bench
from benchmarks.peers.diffusers_pipeline import DiffusersPipeline, Pixels
from benchmarks.rows import Row, Target
from benchmarks.timing import in_turns
from terroir.client import Client
from terroir.demo.plan import PROMPTS
from terroir.lora.key_table import KeyTable
from terroir.tiny import BASE_DIR, NATIVE_SIDE

_STEPS = 20
_GUIDANCE = 3.0
_PEER = "diffusers StableDiffusionPipeline"
_WHAT = f"{NATIVE_SIDE}×{NATIVE_SIDE}, {_STEPS} steps, guidance"
_STACK = {"bench-first": 0.7, "bench-second": 0.5}
_VISIBLE = 8
"""Of 255: an adapter must change some pixel by more, or agreement on its picture proves nothing."""


@dataclass(frozen=True)
class _Sides:
    """Our server and the peer, both loaded."""

    client: Client
    peer: DiffusersPipeline

    def ours(self, prompt: str, seeds: Sequence[int], weights: Mapping[str, float] | None = None) -> Pixels:
        """Pictures over gRPC, decoded."""
        made = self.client.generate(
            prompt, adapters=weights, seeds=seeds, width=NATIVE_SIDE, height=NATIVE_SIDE, steps=_STEPS,
            guidance_scale=_GUIDANCE,
        )  # fmt: skip
        return np.stack([np.asarray(Image.open(io.BytesIO(p.data)).convert("RGB"), np.int16) for p in made.pictures])

    def theirs(self, prompt: str, seeds: Sequence[int]) -> Pixels:
        """The same pictures by the peer, with what it wears."""
        return self.peer.draw(prompt, seeds, side=NATIVE_SIDE, steps=_STEPS, guidance=_GUIDANCE)


def rows(bench: Bench, client: Client, threads: int) -> Iterator[Row]:
    """Warm pictures, a batch, a fresh adapter, and whether the pictures are the same."""
    sides = _Sides(client, DiffusersPipeline(BASE_DIR, threads))
    for side in (sides.ours, sides.theirs):
        side("warm-up", [1])
    yield from _alone(bench, sides)
    yield _pictures(bench, sides, 4, None)
    table = adapters.base_key_table()
    yield _fresh(bench, sides, table)
    yield from _stacked(bench, sides, table)


def _alone(bench: Bench, sides: _Sides) -> Iterator[Row]:
    """One request alone without adapters: in seconds, and against the bare pipeline."""
    seconds = _pictures(bench, sides, 1, Target(1.5, cores=2))
    yield seconds
    yield bench.row(
        f"one request alone over gRPC, no adapter, {_WHAT}, warm, p50", "s", seconds.ours, peer=seconds.peer,
        peer_name=_PEER, target=Target(at_most=1.05, judged="ratio"),
    )  # fmt: skip


def _pictures(bench: Bench, sides: _Sides, count: int, target: Target | None) -> Row:
    seeds = range(count)

    def prompt(turn: int) -> str:
        return f"{PROMPTS[turn % len(PROMPTS)]} {turn}"  # new each turn, so that no side has its embedding kept

    pair = in_turns(
        bench.count(7, 2),
        lambda turn: sides.ours(prompt(turn), seeds),
        lambda turn: sides.theirs(prompt(turn), seeds),
    )
    name = "one picture" if count == 1 else f"{count} seeds in one request"
    return bench.row(
        f"{name} over gRPC, {_WHAT}, warm, p50", "s", pair.ours, peer=pair.peer, peer_name=_PEER, target=target
    )


def _fresh(bench: Bench, sides: _Sides, table: KeyTable) -> Row:
    count = bench.count(5, 2)
    files = []
    for turn in range(count):
        data = adapters.everywhere(table, 100 + turn)
        adapters.publish(sides.client, f"bench-fresh-{turn}", data)
        files.append(_written(bench.work / f"fresh-{turn}.safetensors", data))

    def theirs(turn: int) -> None:
        sides.peer.load("fresh", files[turn])
        sides.peer.wear({"fresh": 1.0})
        sides.theirs(PROMPTS[0], [turn])
        sides.peer.unload()

    pair = in_turns(count, lambda turn: sides.ours(PROMPTS[0], [turn], {f"bench-fresh-{turn}": 1.0}), theirs)
    return bench.row(
        f"one picture with a just-published adapter, first use, {_WHAT}, p50", "s", pair.ours, peer=pair.peer,
        peer_name=f"{_PEER}, load_lora_weights and set_adapters",
    )  # fmt: skip


def _stacked(bench: Bench, sides: _Sides, table: KeyTable) -> Iterator[Row]:
    plain = sides.ours(PROMPTS[0], [0])
    for seed, name in enumerate(_STACK):
        data = adapters.everywhere(table, seed)
        adapters.publish(sides.client, name, data)
        sides.peer.load(name, _written(bench.work / f"{name}.safetensors", data))
    sides.peer.wear(_STACK)
    if np.abs(sides.ours(PROMPTS[0], [0], _STACK) - plain).max() <= _VISIBLE:
        raise RuntimeError("the adapters of this benchmark change nothing visible, so their figures would be empty")
    peer_name = f"{_PEER}, set_adapters"
    pair = in_turns(
        bench.count(5, 2),
        lambda turn: sides.ours(PROMPTS[1], [turn], _STACK),
        lambda turn: sides.theirs(PROMPTS[1], [turn]),
    )
    yield bench.row(
        f"one picture with two adapters stacked, {_WHAT}, warm, p50", "s", pair.ours, peer=pair.peer,
        peer_name=peer_name,
    )  # fmt: skip
    largest = 0
    for prompt in PROMPTS[: bench.count(4, 1)]:
        seeds = [11, 22, 33]
        largest = max(largest, int(np.abs(sides.ours(prompt, seeds, _STACK) - sides.theirs(prompt, seeds)).max()))
    yield bench.row(
        f"largest pixel difference to {peer_name} (kohya files by load_lora_weights), two adapters stacked, {_WHAT}",
        "1/255", float(largest), target=Target(2),
    )  # fmt: skip


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
