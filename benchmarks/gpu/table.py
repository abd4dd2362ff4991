"""The rows: mixed stacks against diffusers and against the best serial path, ticks by plan, joins, compiling."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch._dynamo.utils import counters

from benchmarks import adapters
from benchmarks.bench import Bench
from benchmarks.inference.engine_rig import STYLES, EngineRig, job, stack_of_three, style
from benchmarks.rows import Row, Target
from terroir.inference.engine.messages import DrawJob
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.composition import Composition

_NOT_JUDGED = "tiny shapes on this machine prove the code alone"


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    side: int
    rank: int
    steps: int
    requests: int
    rounds: int
    judged: bool

    @classmethod
    def sd15(cls) -> Self:
        """512 × 512, rank 16, eight requests."""
        return cls(side=512, rank=16, steps=20, requests=8, rounds=5, judged=True)

    @classmethod
    def small(cls) -> Self:
        """For a CPU."""
        return cls(side=32, rank=2, steps=2, requests=4, rounds=1, judged=False)


def rows(bench: Bench, base: Path, scale: Scale) -> Iterator[Row]:
    """All of them; compiling comes last, as it takes minutes."""
    table = Table(bench, Model(str(base)), scale)
    yield from table.throughput(base)
    yield from table.ticks()
    yield from table.compiled()


class Table:
    """The rows of one model."""

    def __init__(self, bench: Bench, model: Model, scale: Scale) -> None:
        self._bench, self._model, self._scale = bench, model, scale
        self._bare = [Composition()] * scale.requests
        key_table = model.key_table()
        self._files = [adapters.attention(key_table, seed, scale.rank) for seed in range(STYLES)]
        self._what = f"{scale.side}×{scale.side}, {scale.steps} steps, guidance, {model.dtype}"

    def throughput(self, base: Path) -> Iterator[Row]:
        """Requests in different 2-adapter stacks."""
        together, one_by_one = self._rig(), self._rig("copy")
        peer = _EagerPeer(base, self._files, self._bench.work, self._model)

        def ours(turn: int) -> None:
            together.draw(self._jobs(turn))
            together.forget()

        def serial(turn: int) -> None:
            for each in self._jobs(turn):
                one_by_one.draw([each])
            one_by_one.forget()

        def eager(turn: int) -> None:
            for index in range(self._scale.requests):
                peer.draw(index, turn, self._scale)

        sides = [_median(self._scale.rounds, side) for side in (ours, serial, eager)]
        rates = [self._scale.requests / seconds for seconds in sides]
        figure = f"{self._scale.requests} requests, as many different 2-adapter stacks, {self._what}, in process"
        yield self._row(figure, "pictures/s", rates[0], rates[2], "diffusers one by one, set_adapters, eager", 5.0)
        yield self._row(figure, "pictures/s", rates[0], rates[1], "our merged copy, one request after the other", 1.5)

    def ticks(self) -> Iterator[Row]:
        """Steady ticks by what they wear, and the tick in which a request joins."""
        rig, none = self._rig(), "the same tick without adapters"
        same = [stack_of_three(0)] * self._scale.requests
        mixed = [stack_of_three(index) for index in range(self._scale.requests)]
        figure = f"tick of {self._scale.requests} requests, {self._what}"
        bare, join = self._tick(rig, self._bare)
        yield self._row(f"{figure}, bare", "ms", bare, None, None, None)
        yield self._row(f"{figure}, the same 3-adapter stack", "ms", self._tick(rig, same)[0], bare, none, None, 1.03)
        different, join = self._tick(rig, mixed)
        yield self._row(f"{figure}, different 3-adapter stacks", "ms", different, bare, none, None, 1.05)
        yield self._row(f"{figure}, all join at once", "ms", join, different, "a steady tick of them", None)
        for plan in ("slots", "concat"):
            forced = self._tick(self._rig(plan), mixed)[0]
            yield self._row(f"{figure}, plan {plan} forced", "ms", forced, bare, none, None)

    def compiled(self) -> Iterator[Row]:
        """torch.compile with static slots: steady ticks, and whether other adapters compile anything."""
        rig = EngineRig(self._model, files=self._files, static_rows=2 * self._scale.requests)
        eager = self._tick(self._rig(), self._bare)[0]
        self._model.compile(**({"backend": "eager"} if self._bench.quick else {"mode": "max-autotune-no-cudagraphs"}))
        mixed = [stack_of_three(index) for index in range(self._scale.requests)]
        taken = self._tick(rig, mixed)[0]
        before = counters["stats"]["unique_graphs"]
        self._tick(rig, [stack_of_three(index, 0.9) for index in reversed(range(self._scale.requests))])
        again = counters["stats"]["unique_graphs"] - before
        figure = f"compiled tick of {self._scale.requests} requests, {self._what}, different 3-adapter stacks"
        yield self._row(figure, "ms", taken, eager, "an eager tick without adapters", None)
        yield self._bench.row("graphs compiled when all adapters changed", "", float(again), target=Target(0))

    def _rig(self, plan: Any = "auto") -> EngineRig:
        return EngineRig(self._model, plan, files=self._files)

    def _jobs(self, turn: int) -> list[DrawJob]:
        return [self._job(index, _pair(index, turn)) for index in range(self._scale.requests)]

    def _job(self, index: int, worn: Composition, **changes: Any) -> DrawJob:
        side = self._scale.side
        return job(index, worn, **{"width": side, "height": side, "steps": self._scale.steps, **changes})

    def _tick(self, rig: EngineRig, worn: Sequence[Composition]) -> tuple[float, float]:
        """Milliseconds of a steady tick (median) and of the one in which all join."""
        steady, joins = [], []
        for _ in range(self._scale.rounds + 1):
            for index, composition in enumerate(worn):
                rig.loop.submit(self._job(index, composition, steps=6))
            joins.append(_timed(rig.loop.tick))
            steady += [_timed(rig.loop.tick) for _ in range(4)]
            rig.draw(())
            rig.forget()
        return 1e3 * statistics.median(steady[4:]), 1e3 * statistics.median(joins[1:])

    def _row(
        self, figure: str, unit: str, ours: float, peer: float | None, peer_name: str | None, at_least: float | None,
        at_most: float | None = None,
    ) -> Row:  # fmt: skip
        """Judged by its ratio, where the shapes are real."""
        bounded = self._scale.judged and (at_least is not None or at_most is not None)
        target = Target(at_least=at_least, at_most=at_most, judged="ratio") if bounded else None
        reason = None if self._scale.judged else _NOT_JUDGED
        return self._bench.row(
            figure, unit, ours, peer=peer, peer_name=peer_name, target=target, reason=None if bounded else reason
        )


class _EagerPeer:
    """diffusers' pipeline in the same precision, adapters loaded, chosen by set_adapters at each request."""

    def __init__(self, base: Path, files: Sequence[bytes], work: Path, model: Model) -> None:
        from diffusers import StableDiffusionPipeline

        self._pipe: Any = StableDiffusionPipeline.from_pretrained(
            base, dtype=getattr(torch, model.dtype), safety_checker=None, requires_safety_checker=False
        ).to(model.device)
        self._pipe.unet.to(memory_format=torch.channels_last)
        self._pipe.set_progress_bar_config(disable=True)
        for seed, data in enumerate(files):
            path = work / f"{style(seed)}.safetensors"
            path.write_bytes(data)
            self._pipe.load_lora_weights(work, weight_name=path.name, adapter_name=style(seed))

    def draw(self, index: int, turn: int, scale: Scale) -> None:
        """One picture in one of the stacks."""
        worn = {part.digest: part.weight for part in _pair(index, turn).parts}
        self._pipe.set_adapters(list(worn), list(worn.values()))
        self._pipe(
            "a red teapot by a river", width=scale.side, height=scale.side, num_inference_steps=scale.steps,
            guidance_scale=3.0, generator=torch.Generator("cpu").manual_seed(index),
        )  # fmt: skip


def _pair(index: int, turn: int) -> Composition:
    return Composition.of(((style(index), 0.6 + turn / 100, 0.0), (style((index + 1) % STYLES), 0.4, 0.0)))


def _median(rounds: int, call: Callable[[int], None]) -> float:
    """Seconds; the first turn warms up."""
    return statistics.median([_timed(lambda turn=turn: call(turn)) for turn in range(rounds + 1)][1:])  # type: ignore[misc]


def _timed(call: Callable[[], object]) -> float:
    _synchronize()
    began = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - began


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
