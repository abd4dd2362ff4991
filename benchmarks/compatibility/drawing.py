"""Pictures of the base, of each style alone and of each pair stacked, drawn by the inference engine and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from terroir.inference.engine.decoding import VaeWorker
from terroir.inference.engine.loop import DrawingLoop
from terroir.inference.engine.messages import DrawingEvent, DrawJob, Drawn, Failed
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.wearing.layers import adapt
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition
from terroir.tiny import NATIVE_SIDE

WEIGHT: Final = 0.7
PROMPTS: Final = (
    "a red teapot by a river in daylight",
    "a yellow pagoda on green hills at sunset",
    "a white boat by a river at night",
    "a blue house in the snow in daylight",
    "a green fish in the desert at sunset",
    "an orange lantern in the city at night",
    "a pink tree on green hills in daylight",
    "a purple umbrella in the city at sunset",
)
SEEDS: Final = (11, 22)
STEPS: Final = 15
_MERGED_BYTES: Final = 1 << 27
_ROWS: Final = 32


@dataclass(frozen=True)
class Column:
    """One stack: the styles in it, each at WEIGHT; none is the base."""

    styles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people and folders."""
        return "+".join(self.styles) or "base"


def columns(styles: Iterable[str], pairs: Iterable[tuple[str, str]]) -> list[Column]:
    """Base, every style alone, the pairs."""
    return [Column(), *(Column((style,)) for style in styles), *(Column(pair) for pair in pairs)]


class Drawer:
    """Draws a column's pictures, one for every prompt and seed, or reads those that are there."""

    def __init__(self, model: Model, adapters: Mapping[str, Adapter], folder: Path) -> None:
        self._model, self._adapters, self._folder = model, adapters, folder

    def pictures(self, column: Column) -> list[Image.Image]:
        """In order of prompts, then seeds."""
        folder = self._folder / "pictures" / column.name
        paths = [folder / f"{prompt}-{seed}.png" for prompt in range(len(PROMPTS)) for seed in SEEDS]
        if not all(path.exists() for path in paths):
            folder.mkdir(parents=True, exist_ok=True)
            for path, picture in zip(paths, self._draw(column), strict=True):
                picture.save(path)
        return [Image.open(path).convert("RGB") for path in paths]

    def _draw(self, column: Column) -> list[Image.Image]:
        events: list[DrawingEvent] = []
        stacks = Stacks(adapt(self._model.layers()), budget_bytes=_MERGED_BYTES)
        vae = VaeWorker(
            self._model, events.append, lambda job, encoded: loop.encoded(job, encoded), preview=self._model.decode,
            used_bytes=lambda: stacks.used_bytes,
        )  # fmt: skip
        loop = DrawingLoop(self._model, stacks, vae, _ROWS, events.append, spare_tick_seconds=0.05)
        for name in column.styles:
            stacks.put(name, stacks.prepare(self._adapters[name]))
        for number, prompt in enumerate(PROMPTS):
            loop.submit(
                DrawJob(
                    id=str(number), prompt=prompt, negative_prompt="",
                    composition=Composition.of((name, WEIGHT, WEIGHT) for name in column.styles),
                    width=NATIVE_SIDE, height=NATIVE_SIDE, steps=STEPS, guidance_scale=4.0, sampler="dpmpp-2m",
                    seeds=SEEDS,
                )
            )  # fmt: skip
        while loop.busy:
            loop.tick()
            vae.work_off()
        failed = [event for event in events if isinstance(event, Failed)]
        if failed:
            raise RuntimeError(f"{column.name}: {failed[0].message}")
        drawn = {(int(e.id), e.index): e.raster for e in events if isinstance(e, Drawn)}
        return [
            Image.frombytes("RGB", (raster.width, raster.height), raster.data)
            for raster in (drawn[prompt, seed] for prompt in range(len(PROMPTS)) for seed in range(len(SEEDS)))
        ]
