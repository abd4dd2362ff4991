"""Our training engine beside other trainers on three bases, what else a job costs, and how soon one steps.

sd-scripts takes part where it is installed; benchmarks/peers/kohya.py says how.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.bench import Bench
from benchmarks.gpu import training as on_gpu
from benchmarks.gpu.base import QUARTER, SD15, build_sd15
from benchmarks.parts import in_parts
from benchmarks.peers.kohya import MISSING, Kohya
from benchmarks.rows import Row
from benchmarks.training import beside_kohya, checkpoint_cost, first_step, judged, memory_rows, speed
from benchmarks.training.memory_rows import Trained
from benchmarks.training.one_side import pictures_of
from benchmarks.training.sides import Place
from benchmarks.training.speed import Comparison
from terroir.tiny import BASE_DIR
from terroir.training.config import TrainConfig

_STYLES: Final = Path(__file__).resolve().parents[2] / "examples" / "styles"
# The peers' scripts drop no captions.
_SAME: Final = {"lora_rank": 8, "lora_alpha": 8, "learning_rate": 1e-3, "caption_dropout": 0}
_TINY: Final = _SAME | {"batch_size": 8, "resolution": 64}
_QUARTER: Final = _SAME | {"batch_size": 4, "resolution": 128}
_WHOLE: Final = _SAME | {"batch_size": 1, "resolution": 128}
_QUARTER_NAME, _WHOLE_NAME = "SD 1.5's blocks at a quarter of their width", "SD 1.5's shape"
_WHOLE_STEPS: Final = (7, 5)
_WHOLE_ROUNDS: Final = (2, 1)


@dataclass(frozen=True)
class _Area:
    """What all parts share."""

    bench: Bench
    folder: Path
    """Of the pictures."""
    threads: int

    def tiny(self) -> Iterator[Row]:
        """The embedded base."""
        return self._both("tiny base", BASE_DIR, _TINY, steps=(18, 6), rounds=(4, 2))

    def quarter(self) -> Iterator[Row]:
        """SD 1.5, narrower."""
        base = build_sd15(self.bench.work / "quarter", QUARTER, torch.float32)
        yield from self._both(_QUARTER_NAME, base, _QUARTER, steps=(9, 5), rounds=(3, 1))

    def whole(self) -> Iterator[Row]:
        """SD 1.5 itself."""
        if not self.bench.quick:
            yield from self._both(_WHOLE_NAME, self._sd15(), _WHOLE, steps=_WHOLE_STEPS, rounds=_WHOLE_ROUNDS)

    def kohya(self) -> Iterator[Row]:
        """SD 1.5 itself beside sd-scripts, which knows no narrower one."""
        kohya, config = Kohya.of_environment(), self._config(_WHOLE, _WHOLE_STEPS)
        name = str(self._compared(_WHOLE_NAME, self._whole, config, _WHOLE_ROUNDS))
        if kohya is None or self.bench.quick:
            reason = MISSING if kohya is None else "a quick run leaves SD 1.5's real width out"
            return beside_kohya.unmeasured(self.bench, name, reason)
        trained = Trained(name, self._sd15(), self.folder, config, self.threads)
        return beside_kohya.rows(self.bench, kohya, trained, self.bench.count(*_WHOLE_ROUNDS))

    def checkpoints(self) -> Iterator[Row]:
        """What saving costs."""
        place = Place(BASE_DIR, self.threads)
        return checkpoint_cost.rows(self.bench, place, "tiny base", pictures_of(self.folder))

    def judging(self) -> Iterator[Row]:
        """What judging costs."""
        return judged.rows(self.bench, pictures_of(self.folder), self.threads)

    def first_step(self) -> Iterator[Row]:
        """How soon a job steps."""
        return first_step.rows(self.bench, self.folder)

    def on_gpu(self) -> Iterator[Row]:
        """A command of its own."""
        return on_gpu.unmeasured(self.bench)

    @property
    def _whole(self) -> Path:
        return self.bench.work / "whole"

    def _sd15(self) -> Path:
        built = (self._whole / "model_index.json").exists()
        return self._whole if built else build_sd15(self._whole, SD15, torch.float32)

    def _config(self, keys: dict[str, Any], steps: tuple[int, int]) -> dict[str, Any]:
        count = self.bench.count(*steps)
        return keys | {"max_train_steps": count, "save_steps": count}

    def _compared(self, name: str, base: Path, config: dict[str, Any], rounds: tuple[int, int]) -> Comparison:
        return Comparison(
            name, Place(base, self.threads), TrainConfig.model_validate(config), pictures_of(self.folder),
            self.bench.count(*rounds),
        )  # fmt: skip

    def _both(
        self, name: str, base: Path, keys: dict[str, Any], *, steps: tuple[int, int], rounds: tuple[int, int]
    ) -> Iterator[Row]:
        """Speed and memory; `steps` and `rounds` in full and quick."""
        config = self._config(keys, steps)
        compared = self._compared(name, base, config, rounds)
        yield from speed.rows(self.bench, compared)
        few = config | {"max_train_steps": 3, "save_steps": 3}
        yield from memory_rows.rows(self.bench, Trained(str(compared), base, self.folder, few, self.threads))


def rows(bench: Bench) -> Iterator[Row]:
    """Speed and memory on three bases, what checkpoints and judging cost, and the way from CreateJob to a step."""
    folder = sorted(path.parent for path in _STYLES.glob("*/style.yaml"))[0]
    area = _Area(bench, folder, len(os.sched_getaffinity(0)))
    return in_parts(
        bench,
        ("training on the tiny base", area.tiny),
        (f"training on {_QUARTER_NAME}", area.quarter),
        (f"training on {_WHOLE_NAME}", area.whole),
        (f"training on {_WHOLE_NAME} beside kohya sd-scripts", area.kohya),
        ("cost of a checkpoint", area.checkpoints),
        ("cost of judging", area.judging),
        ("CreateJob to the first step", area.first_step),
        ("training on a GPU", area.on_gpu),
    )
