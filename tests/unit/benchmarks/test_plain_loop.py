"""The loop that training is compared with computes what the configuration says."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.gpu.base import build_small
from benchmarks.peers.plain_loop import PlainLoop, run
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Picture


def picture(width: int, height: int) -> Picture:
    """Red on its left half, blue on its right."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    file = io.BytesIO()
    image.save(file, "PNG")
    return Picture("a.png", file.getvalue(), "a red teapot")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small(tmp_path_factory.mktemp("plain") / "base")


def config(**keys: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {"lora_rank": 2, "resolution": 32, "batch_size": 2, "max_train_steps": 3, "learning_rate": 1e-2} | keys
    )


@pytest.mark.parametrize(("width", "height"), [(32, 32), (90, 32), (32, 90), (200, 100), (17, 21)])
def test_a_picture_of_any_shape_becomes_a_square_in_the_range_of_the_vae(base: Path, width: int, height: int) -> None:
    pixels, ids = PlainLoop(base, config()).batch([picture(width, height)], [0, 0])
    assert pixels.shape == (2, 3, 32, 32)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert pixels[:, 1].max() == pytest.approx(-1)  # nothing is green
    assert ids.shape[0] == 2


def test_only_the_adapter_of_the_attention_learns(base: Path) -> None:
    torch.manual_seed(0)
    loop = PlainLoop(base, config(weight_decay=0))
    named = dict(loop._unet.named_parameters())
    before = {name: weight.detach().clone() for name, weight in named.items()}
    loop.update([loop.batch([picture(32, 32)], [0, 0])])
    changed = {name for name, weight in named.items() if not torch.equal(weight, before[name])}
    assert changed
    assert all("lora_B" in name and ".attn" in name for name in changed)  # the gradient of A is zero while B is


def test_accumulated_passes_make_one_update(base: Path) -> None:
    result = run(base, config(gradient_accumulation_steps=2), [picture(32, 32)] * 3, threads=1)
    assert len(result.losses) == len(result.step_seconds) == 3


def test_in_half_precision_frozen_weights_are_halved_and_the_adapter_is_not(base: Path) -> None:
    loop = PlainLoop(base, config(mixed_precision="bf16", gradient_checkpointing=True))
    kept = {weight.dtype for weight in loop._unet.parameters() if weight.requires_grad}
    frozen = {weight.dtype for weight in loop._unet.parameters() if not weight.requires_grad}
    assert (kept, frozen) == ({torch.float32}, {torch.bfloat16})
    assert loop.update([loop.batch([picture(32, 32)], [0, 0])]) > 0
