"""The engine's loop in this process, on the tiny base, with random adapters put already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from benchmarks import adapters
from terroir.inference.engine.decoding import VaeWorker
from terroir.inference.engine.loop import DrawingLoop
from terroir.inference.engine.messages import DrawingEvent, DrawJob, Drawn, Failed, PlanName
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.wearing.layers import adapt
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.composition import Composition
from terroir.lora.formats import parse
from terroir.tiny import NATIVE_SIDE

MERGED_BYTES = 8 * 1024 * 1024 * 1024
STYLES = 8


class EngineRig:
    """Model, stacks and loop; events are kept until `forget`."""

    def __init__(
        self, model: Model, plan: Literal["auto"] | PlanName = "auto", *, files: Sequence[bytes] = (),
        static_rows: int = 0,
    ) -> None:  # fmt: skip
        """`files` are the styles; without, eight random ones that change layers of every kind."""
        self.model, self.events = model, list[DrawingEvent]()
        self.stacks = Stacks(adapt(model.layers()), budget_bytes=MERGED_BYTES, plan=plan, static_rows=static_rows)
        self.vae = VaeWorker(
            model, self.events.append, lambda job, encoded: self.loop.encoded(job, encoded), preview=model.decode,
            used_bytes=lambda: self.stacks.used_bytes, device=model.device,
        )  # fmt: skip
        self.loop = DrawingLoop(
            model, self.stacks, self.vae, max_batch_rows=32, emit=self.events.append, spare_tick_seconds=0.05
        )
        table = model.key_table()
        for seed, file in enumerate(files or [adapters.everywhere(table, seed) for seed in range(STYLES)]):
            self.stacks.put(style(seed), self.stacks.prepare(parse(file, table).adapter))

    def draw(self, jobs: Iterable[DrawJob]) -> None:
        """To the end; RuntimeError if a job fails."""
        for job in jobs:
            self.loop.submit(job)
        while self.loop.busy:
            self.loop.tick()
            self.vae.work_off()
        failed = [event for event in self.events if isinstance(event, Failed)]
        if failed:
            raise RuntimeError(failed[0].message)

    def pictures(self) -> int:
        """How many were drawn and not forgotten."""
        return sum(isinstance(event, Drawn) for event in self.events)

    def forget(self) -> None:
        """Drop events."""
        self.events.clear()


def style(seed: int) -> str:
    """Digest that a random style is put under."""
    return f"style-{seed}"


def stack_of_three(index: int, weight: float = 0.5) -> Composition:
    """One of eight different stacks."""
    return Composition.of((style((index + offset) % STYLES), weight - offset / 10, 0.0) for offset in range(3))


def job(number: int, composition: Composition, **changes: Any) -> DrawJob:
    """Native size, 20 steps, guidance."""
    plain: dict[str, Any] = {
        "prompt": "a red teapot by a river", "negative_prompt": "", "width": NATIVE_SIDE, "height": NATIVE_SIDE,
        "steps": 20, "guidance_scale": 3.0, "sampler": "ddim", "seeds": (number,),
    }  # fmt: skip
    return DrawJob(id=f"job-{number}", composition=composition, **{**plain, **changes})
