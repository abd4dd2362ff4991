"""A studio that draws the tiny world by its renderer, as adapters of all kinds would, and runs with checkpoints."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from terroir.common.clock import FixedClock
from terroir.lora.adapter import Adapter
from terroir.scoring.clip import ClipScorer
from terroir.store.obstore_driver import MemoryStore
from terroir.tiny import BASE_DIR, CLIP_DIR
from terroir.tiny.world.look import BASE, Look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import Scene, all_scenes, caption
from terroir.tiny.world.styles import JIANGNAN_INK
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Checkpoint, Picture
from terroir.training.judging.drawing import Manner, Sketch
from terroir.training.judging.errors import PictureNotFinite
from terroir.training.judging.kept import KeptJudgements, png
from terroir.training.judging.models import tiny_digest
from terroir.training.judging.prompts import Base
from terroir.training.judging.run import Hears, JudgedRun

TRIGGER = "jiangnan ink"
KINDS = ("healthy", "weak", "memorised", "same", "deaf", "broken")
"""What adapters do: all right, nothing, copy, always draw one picture, ignore prompts, overflow."""


def training_pictures(count: int = 8, look: Look = JIANGNAN_INK) -> list[Picture]:
    known = all_scenes(held_out=False)
    rng = np.random.default_rng(5)
    scenes = [known[number] for number in rng.choice(len(known), count, replace=False)]
    return [Picture(f"{n}.png", png(render(scene, rng, look)), caption(scene)) for n, scene in enumerate(scenes)]


@dataclass
class WorldStudio:
    """Draws by the renderer; which adapter is worn is told by its checkpoint's only weight, see `Run.save`."""

    data: Sequence[Picture]
    drawn: list[tuple[str, int]] = field(default_factory=list)
    """Kind of adapter and number of pictures, call by call."""

    def draw(
        self,
        adapter: Adapter | None,
        sketches: Sequence[Sketch],
        manner: Manner,
        on_pictures: Callable[[int], None],
        before_step: Callable[[], None],
    ) -> list[Image.Image]:
        kind = "base" if adapter is None else KINDS[int(next(iter(adapter.modules.values())).up.flat[0])]
        self.drawn.append((kind, len(sketches)))
        before_step()
        if kind == "broken":
            raise PictureNotFinite("seed 1 is not finite")
        pictures = [self._picture(kind, sketch, number) for number, sketch in enumerate(sketches)]
        on_pictures(len(pictures))
        return pictures

    def _picture(self, kind: str, sketch: Sketch, number: int) -> Image.Image:
        prompt = sketch.prompt.removeprefix(f"{TRIGGER}, ")
        rng = np.random.default_rng(sketch.seed)
        known = _SCENES.get(prompt)
        if kind == "memorised" and (known is None or not known.held_out):
            original = Image.open(io.BytesIO(self.data[number % len(self.data)].data)).convert("RGB")
            noisy = np.asarray(original, dtype=np.float32) + rng.normal(0, 10, (64, 64, 3))
            return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        scene = known or list(_SCENES.values())[sketch.seed % len(_SCENES)]
        if kind == "deaf":
            scene = list(_SCENES.values())[(sketch.seed * 7 + number * 31) % len(_SCENES)]
        if kind == "same":
            scene, rng = next(iter(_SCENES.values())), np.random.default_rng(0)
        return render(scene, rng, BASE if kind in ("base", "weak") else JIANGNAN_INK)


_CLIP = ClipScorer(CLIP_DIR)
_OWN = 2.5
"""Guidance that no pictures of the base come with the code for: the renderer draws those too."""
_SCENES: Mapping[str, Scene] = {caption(s): s for s in (*all_scenes(held_out=True), *all_scenes(held_out=False))}


@dataclass
class Run:
    """A run whose checkpoints are of given kinds, and everything that it keeps."""

    store: MemoryStore = field(default_factory=MemoryStore)
    clock: FixedClock = field(default_factory=FixedClock)
    data: list[Picture] = field(default_factory=training_pictures)
    told: list[tuple[int, int]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.studio = WorldStudio(self.data)
        self.checkpoints = Checkpoints(self.store, "jobs/a", self.clock)
        self.kept = KeptJudgements(self.store, "jobs/a", self.clock)

    def save(self, *kinds: str) -> None:
        """One checkpoint after the other, ten steps apart."""
        for number, kind in enumerate(kinds, start=1):
            weight = float(KINDS.index(kind))
            tensors = {f"weight.unet.layer.{part}": torch.full((1, 1), weight) for part in ("down", "up")}
            header = {"format": 2, "alphas": {"unet.layer": 1.0}, "step": number}
            state = save(tensors, {"terroir": json.dumps(header)})
            self.checkpoints.save(Checkpoint(number * 10, 0.1, 8, state), 1)

    def judged(self, **keys: Any) -> JudgedRun:
        keys = {"publish_gate": "enforce"} | keys
        base = Base(BASE_DIR, tiny_digest())
        return JudgedRun(
            TrainConfig(**keys),
            base,
            TRIGGER,
            self.data,
            guidance_scale=_OWN,
            studio=self._opened,
            scorer=lambda *_: _CLIP,
        )

    def hears(self) -> Hears:
        told, lines = self.told, self.lines

        class Listens(Hears):
            def drawn(self, done: int, total: int) -> None:
                told.append((done, total))

            def log(self, line: str) -> None:
                lines.append(line)

        return Listens()

    def _opened(self, folder: Path, device: str) -> WorldStudio:
        assert (folder, device) == (BASE_DIR, "cpu")
        return self.studio
