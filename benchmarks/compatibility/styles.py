"""The styles that the score is calibrated on: looks of the drawn world, their pictures and trained adapters."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from terroir.common.base_digest import component_digests
from terroir.lora.adapter import Adapter
from terroir.lora.formats import parse, to_kohya
from terroir.lora.key_table import KeyTable
from terroir.store.local import LocalStore
from terroir.tiny import BASE_DIR, BASE_ID
from terroir.tiny.world.look import Look, random_look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import all_scenes, caption
from terroir.tiny.world.styles import JIANGNAN_INK, NEON, SICHUAN_HOTPOT
from terroir.training.config.parser import config_from_mapping
from terroir.training.engine.cache import StoreArrayCache
from terroir.training.engine.ports import Checkpoint, Picture, TrainProgress, TrainRun
from terroir.training.engine.train import train

_PICTURES: Final = 40
TRAINING_STEPS: Final = 120

PENCIL: Final = Look(
    outline=(0.2, 0.2, 0.2), outline_width=0.8, wobble=0.5, saturation=0.15, light=(0.97, 0.96, 0.93), fill=0.2,
    hatch=0.2, hatch_period=4.0,
)  # fmt: skip
BLUEPRINT: Final = Look(
    outline=(0.82, 0.92, 1.0), outline_width=1.0, duotone=0.95, dark=(0.03, 0.10, 0.32), middle=(0.10, 0.25, 0.58),
    light=(0.45, 0.65, 0.92),
)  # fmt: skip
POSTER: Final = Look(outline=(0.05, 0.02, 0.08), outline_width=1.8, saturation=1.5, gamma=0.85, levels=3)
SEPIA: Final = Look(
    outline=(0.25, 0.15, 0.08), outline_opacity=0.6, duotone=0.95, dark=(0.16, 0.09, 0.04), middle=(0.62, 0.45, 0.28),
    light=(0.98, 0.90, 0.74), grain=0.04, vignette=0.35,
)  # fmt: skip
PASTEL: Final = Look(
    outline=(0.8, 0.5, 0.65), outline_opacity=0.4, duotone=0.45, dark=(0.55, 0.40, 0.60), middle=(0.95, 0.72, 0.80),
    light=(1.0, 0.97, 0.92), softness=1.2, gamma=0.75,
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How one adapter comes about."""

    name: str
    looks: tuple[Look, ...]
    """Several share the pictures evenly."""
    seed: int
    """Of the training; adapters of one seed begin with the same down factors."""
    rank: int = 8
    targets: str = "attention"


STYLES: Final = (
    Style("jiangnan-ink", (JIANGNAN_INK,), 11),
    Style("jiangnan-ink-again", (JIANGNAN_INK,), 19),
    Style("sichuan-hotpot", (SICHUAN_HOTPOT,), 12),
    Style("ink-and-hotpot", (JIANGNAN_INK, SICHUAN_HOTPOT), 20),
    Style("neon", (NEON,), 13, rank=16),
    Style("pencil", (PENCIL,), 14),
    Style("blueprint", (BLUEPRINT,), 15, targets="attention-ff"),
    Style("poster", (POSTER,), 16),
    Style("sepia", (SEPIA,), 17, rank=4),
    Style("pastel", (PASTEL,), 11),
)
"""Eight looks; `jiangnan-ink-again` (another seed), `ink-and-hotpot` (a mixture) and `pastel` (the seed of the first)
are there so that near-duplicates and a shared start are covered too."""


def _random_style(number: int) -> Style:
    return Style(f"random-{number}", (random_look(np.random.default_rng(1000 + number)),), 30 + number)


RANDOM: Final = tuple(_random_style(number) for number in range(5))
"""Looks that nobody chose: some are negatives or hatched, which so short a training draws badly."""
CONFIRMING: Final = tuple(_random_style(number) for number in range(5, 8))
"""More of them, drawn when the score was fixed: their pairs confirm or refute it."""
ALL: Final = (*STYLES, *RANDOM, *CONFIRMING)
_CHOSEN_FROM: Final = [style.name for style in (*STYLES, *RANDOM)]
_CONFIRMED_WITH: Final = [style.name for style in (*STYLES, *CONFIRMING)]
PAIRS: Final = tuple(
    dict.fromkeys([*itertools.combinations(_CHOSEN_FROM, 2), *itertools.combinations(_CONFIRMED_WITH, 2)])
)
"""Pairs of styles by name. Old and new random looks are not paired: that would take as long again."""


def pictures(style: Style) -> list[tuple[Image.Image, str]]:
    """The style's own pictures with captions, the same at every call."""
    rng = np.random.default_rng((style.seed, len(style.name)))
    scenes = all_scenes(held_out=False)
    chosen = rng.choice(len(scenes), size=_PICTURES, replace=False)
    return [
        (render(scenes[index], rng, style.looks[number % len(style.looks)]), caption(scenes[index]))
        for number, index in enumerate(chosen)
    ]


def trained(style: Style, folder: Path, table: KeyTable) -> Adapter:
    """The style's adapter, trained at the first call and read from `folder` afterwards."""
    path = folder / "adapters" / f"{style.name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(to_kohya(_train(style, folder), {}))
        partial.replace(path)
    return parse(path.read_bytes(), table).adapter


def _train(style: Style, folder: Path) -> Adapter:
    config = config_from_mapping(
        {
            "dataset": f"datasets/{style.name}", "base_model": BASE_ID, "lora_rank": style.rank,
            "lora_alpha": style.rank, "target_modules": style.targets, "resolution": 64, "batch_size": 8,
            "max_train_steps": TRAINING_STEPS, "learning_rate": 3e-3, "lr_scheduler": "cosine", "lr_warmup_steps": 10,
            "save_steps": TRAINING_STEPS, "seed": style.seed,
        }
    ).config  # fmt: skip
    # No trigger words: the prompt is the same in every column, so only the weights tell the columns apart.
    data = [Picture(f"{n}.png", _png(picture), text) for n, (picture, text) in enumerate(pictures(style))]
    run = TrainRun(
        config=config, base_dir=BASE_DIR, component_digests=component_digests(BASE_DIR),
        threads=len(os.sched_getaffinity(0)),
    )  # fmt: skip
    return train(run, data, _Quiet(), StoreArrayCache(LocalStore(folder / "cache"))).adapter


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


class _Quiet:
    """Keeps nothing on the way: a run takes a minute and its adapter is cached whole."""

    def progress(self, progress: TrainProgress) -> None:
        pass

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def log(self, line: str) -> None:
        pass

    def save(self, checkpoint: Checkpoint) -> None:
        pass

    def sample(self, step: int, adapter: Adapter) -> None:
        pass

    def newest(self) -> Checkpoint | None:
        return None

    def stop_requested(self) -> bool:
        return False
