"""Learning rates by step: courses, warm-up, the text encoder's own, and what they do in a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.optimization import get_scheduler
from hypothesis import given
from hypothesis import strategies as st
from training_kit import Bench, MemorySinks, flat

from terroir.lora.adapter import Adapter
from terroir.training.config import LrScheduler, TrainConfig
from terroir.training.engine.schedule import learning_rate, rates_of, text_encoder_rate


@given(st.sampled_from(LrScheduler), st.integers(0, 12), st.integers(1, 60), st.integers(1, 5), st.floats(0, 0.999))
def test_every_course_is_that_of_diffusers(
    scheduler: LrScheduler, warm_up: int, total: int, cycles: int, place: float
) -> None:
    """But for the warm-up, which begins at the first step with a rate above 0."""
    step = int(place * total)
    config = TrainConfig(learning_rate=1.0, lr_scheduler=scheduler, lr_warmup_steps=warm_up, lr_num_cycles=cycles)
    if step < warm_up:
        assert learning_rate(config, step, total) == pytest.approx((step + 1) / warm_up)
        return
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if scheduler is LrScheduler.CONSTANT else scheduler.value
    theirs = get_scheduler(
        name, optimizer, num_warmup_steps=warm_up, num_training_steps=total, num_cycles=cycles
    ).lr_lambdas[0]
    assert learning_rate(config, step, total) == pytest.approx(theirs(step), abs=1e-9)


def test_the_text_encoder_has_a_rate_a_course_and_an_end_of_its_own() -> None:
    config = TrainConfig(
        learning_rate=1.0, text_encoder_lr=0.5, lr_scheduler="constant", text_encoder_lr_scheduler="linear",
        text_encoder_stop_step=4,
    )  # fmt: skip
    assert [rates_of(config, step, 8).denoiser for step in range(8)] == [1.0] * 8
    found = [rates_of(config, step, 8).text_encoder for step in range(8)]
    assert found == pytest.approx([0.5, 0.375, 0.25, 0.125, 0, 0, 0, 0])


def test_without_a_course_of_its_own_the_text_encoder_follows_the_denoiser_s() -> None:
    config = TrainConfig(learning_rate=1.0, text_encoder_lr=0.1, lr_scheduler="cosine", lr_warmup_steps=2)
    for step in range(10):
        assert text_encoder_rate(config, step, 10) == pytest.approx(learning_rate(config, step, 10) / 10)
    assert text_encoder_rate(TrainConfig(), 0, 10) == 0


def part(adapter: Adapter, component: str) -> np.ndarray:
    return flat(Adapter({layer: m for layer, m in adapter.modules.items() if layer.startswith(component)}))


TEXT: dict[str, Any] = {"text_encoder_lr": 1e-2, "max_train_steps": 4}


def test_a_text_encoder_stays_as_it_is_after_its_last_step_while_the_denoiser_learns_on(small: Bench) -> None:
    stopped = small.run(**TEXT, text_encoder_stop_step=2).adapter
    two_steps = small.run(**{**TEXT, "max_train_steps": 2}).adapter
    to_the_end = small.run(**TEXT).adapter
    assert np.array_equal(part(stopped, "text"), part(two_steps, "text"))
    assert not np.allclose(part(stopped, "text"), part(to_the_end, "text"))
    assert not np.allclose(part(stopped, "unet"), part(two_steps, "unet"))


def test_both_rates_are_curves(small: Bench) -> None:
    sinks = MemorySinks()
    small.run(sinks, **TEXT, text_encoder_lr_scheduler="linear")
    assert [values["text_encoder_learning_rate"] for _, values in sinks.curves] == pytest.approx(
        [1e-2, 7.5e-3, 5e-3, 2.5e-3]
    )
    assert [values["learning_rate"] for _, values in sinks.curves] == [1e-2] * 4


def test_a_frozen_and_a_slower_block_show_in_the_weights(small: Bench) -> None:
    """After one step of SGD from equal values the change is in proportion to the rate."""
    keys: dict[str, Any] = {"optimizer": "sgd", "max_train_steps": 1, "weight_decay": 0, "max_grad_norm": 0}
    usual = small.run(**keys).adapter.modules
    slower = small.run(**keys, block_lr_weights={"down_blocks": 0.5, "mid_block": 0}).adapter.modules
    for layer, module in usual.items():
        if layer.startswith("unet.mid_block"):
            assert layer not in slower
        else:
            share = 0.5 if layer.startswith("unet.down_blocks") else 1.0
            assert np.allclose(slower[layer].tensors["lora_up.weight"], share * module.tensors["lora_up.weight"])


def test_loraplus_makes_up_factors_learn_faster(small: Bench) -> None:
    keys: dict[str, Any] = {"optimizer": "sgd", "max_train_steps": 1, "weight_decay": 0, "max_grad_norm": 0}
    usual = small.run(**keys).adapter.modules
    plus = small.run(**keys, loraplus_lr_ratio=8).adapter.modules
    for layer, module in usual.items():
        before, after = module.tensors, plus[layer].tensors
        assert np.allclose(after["lora_up.weight"], 8 * before["lora_up.weight"], atol=1e-9)
        assert np.array_equal(after["lora_down.weight"], before["lora_down.weight"])
