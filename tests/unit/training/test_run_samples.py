"""Sample pictures while a run trains."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from PIL import Image
from training_kit import SMALL, Bench, MemorySinks, flat

from terroir.lora.adapter import Adapter
from terroir.store.obstore_driver import MemoryStore
from terroir.training.artifacts.samples import SEEDS, KeptSamples, Sampler, sampler_of
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import TrainRun
from terroir.training.judging import drawing

PROMPTS = ("a red house", "a blue boat")


class Sampling(MemorySinks):
    """Sinks that draw, as a job's do."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self._sampler = sampler

    def sample(self, step: int, adapter: Adapter) -> None:
        self._sampler.sample(step, adapter)


def sampled(small: Bench, **keys: object) -> tuple[Mapping[int, bytes], Adapter]:
    keys = {"sample_prompts": PROMPTS, "save_steps": 3} | keys
    config = TrainConfig(**{**SMALL, **keys})
    kept = KeptSamples(MemoryStore(), "jobs/a")
    sinks = Sampling(sampler_of(TrainRun(config, small.base, {}, trigger_word="ink"), kept, lambda _: None))
    result = small.run(sinks, **keys)
    return kept.all(), result.adapter


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing.Manner, "__init__", _quickly)


def _quickly(self: drawing.Manner, steps: int = 1, guidance_scale: float = 3.0, side: int = 0) -> None:
    for name, value in (("steps", steps), ("guidance_scale", guidance_scale), ("side", side)):
        object.__setattr__(self, name, value)


def test_samples_are_drawn_when_they_are_due_and_change_no_weight(small: Bench) -> None:
    """`sample_steps`, or else every checkpoint, and always the last step; `sample_prompts` are the rows."""
    plain = flat(small.run(MemorySinks(), save_steps=3).adapter)
    by_checkpoint, adapter = sampled(small, lora_dropout=0.0)
    assert list(by_checkpoint) == [3, 4] and np.array_equal(flat(adapter), plain)
    assert list(sampled(small, sample_steps=2)[0]) == [2, 4]
    assert list(sampled(small, sample_prompts=())[0]) == []
    with Image.open(io.BytesIO(by_checkpoint[4])) as sheet:
        side = sheet.width // len(SEEDS)
        assert sheet.height == side * len(PROMPTS)


def test_what_a_killed_attempt_has_drawn_is_not_drawn_again(small: Bench) -> None:
    kept, lines = KeptSamples(MemoryStore(), "jobs/a"), list[str]()
    kept.keep(4, Image.new("RGB", (8, 8), "red"))
    Sampler(small.base, "cpu", PROMPTS, kept, lines.append).sample(4, Adapter({}))
    assert not lines and list(kept.all()) == [4]


def test_a_device_without_room_for_a_second_base_trains_on_without_samples(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(drawing.Studio, "draw", full)
    kept, lines = KeptSamples(MemoryStore(), "jobs/a"), list[str]()
    sampler = Sampler(small.base, "cpu", PROMPTS, kept, lines.append)
    sampler.sample(2, Adapter({}))
    sampler.sample(4, Adapter({}))
    assert len(lines) == 1 and "memory is too short" in lines[0] and not kept.all()
