"""Sample pictures of a run while it trains: the same prompts and seeds again and again, drawn as they are served."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from PIL import Image

from terroir.store.errors import AlreadyExists
from terroir.store.interface import ObjectStore

if TYPE_CHECKING:
    from pathlib import Path

    from terroir.lora.adapter import Adapter  # the service lists samples without having torch
    from terroir.training.artifacts.curves import Curves
    from terroir.training.engine.ports import TrainRun

SEEDS: Final = (4001, 4002)
"""Of every prompt."""
_CELL: Final = 256
"""Largest side of a picture in a sheet, in pixels."""


class KeptSamples:
    """Contact sheets by step: a row a prompt, a column a seed."""

    def __init__(self, store: ObjectStore, run_prefix: str) -> None:
        self._store = store
        self._prefix = f"{run_prefix}/samples"

    def has(self, step: int) -> bool:
        """Whether a step's sheet is there; a run that was resumed draws none twice."""
        return self._store.exists(self._key(step))

    def keep(self, step: int, sheet: Image.Image) -> None:
        """Keep a step's sheet; the first stays."""
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        with suppress(AlreadyExists):
            self._store.create(self._key(step), buffer.getvalue())

    def all(self) -> dict[int, bytes]:
        """PNG files by step."""
        return {int(key.rpartition("/")[2]): self._store.get(key) for key in self._store.list(self._prefix)}

    def _key(self, step: int) -> str:
        return f"{self._prefix}/{step:08d}"


class Sampler:
    """Draws the sheet of a step; the base is loaded with the first one."""

    def __init__(
        self, base_dir: Path, device: str, prompts: Sequence[str], kept: KeptSamples, log: Callable[[str], None],
        curves: Curves | None = None,
    ) -> None:  # fmt: skip
        """`prompts` as they are drawn, with the trigger word; sheets are shown beside `curves`."""
        self._base_dir, self._device = base_dir, device
        self._prompts = list(prompts)
        self._kept = kept
        self._log = log
        self._curves = curves
        self._draw: Callable[[Adapter], list[Image.Image]] | None = None

    def sample(self, step: int, adapter: Adapter) -> None:
        """Draw and keep the sheet of a step. Training goes on where the device has no room for a second base."""
        if not self._prompts or self._kept.has(step):
            return
        import torch

        from terroir.training.judging.errors import PictureNotFinite
        from terroir.training.judging.evidence import grid

        try:
            pictures = self._drawn(adapter)
        except PictureNotFinite as error:
            self._log(f"no samples of step {step}: {error}")
            return
        except torch.OutOfMemoryError:
            self._prompts = []
            self._log(f"no samples from step {step} on: memory is too short for a second copy of the base")
            return
        sheet = grid(pictures, len(SEEDS), cell=_CELL)
        self._kept.keep(step, sheet)
        if self._curves is not None:
            self._curves.add_picture(step, "samples", sheet)
        self._log(f"drew samples of step {step}")

    def _drawn(self, adapter: Adapter) -> list[Image.Image]:
        from terroir.training.judging.drawing import Manner, Sketch, Studio

        if self._draw is None:
            studio = Studio(self._base_dir, self._device)
            sketches = [Sketch(prompt, seed) for prompt in self._prompts for seed in SEEDS]
            self._draw = lambda worn: studio.draw(worn, sketches, Manner())
        return self._draw(adapter)


def sampler_of(run: TrainRun, kept: KeptSamples, log: Callable[[str], None], curves: Curves | None = None) -> Sampler:
    """For a run's own prompts."""
    from terroir.training.engine.data.captions import with_trigger

    trigger = run.config.trigger_word or run.trigger_word
    return Sampler(
        run.base_dir, run.device, [with_trigger(prompt, trigger) for prompt in run.config.sample_prompts], kept, log,
        curves,
    )  # fmt: skip
