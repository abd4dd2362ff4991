"""Rows of the keys of the update: length, batch, rates, optimiser, precision, memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from data_kit import alike, batches_of, config
from engine_kit import adapted, load
from key_table import Ground, part, shows

from terroir.training.engine.data.order import total_steps
from terroir.training.engine.families.placing import ready_to_train
from terroir.training.engine.optimizers import build_optimizer
from terroir.training.engine.schedule import learning_rate, text_encoder_rate
from terroir.training.engine.state import adapter_in
from terroir.training.errors import NonFiniteLoss

SGD: dict[str, Any] = {"optimizer": "sgd", "weight_decay": 0, "max_grad_norm": 0, "max_train_steps": 1}
"""A step is the rate times the gradient; up factors start at 0, so after one step they are that step."""


def same(batch: Any, _: int) -> Any:
    return batch


def rates(steps: int = 4, **keys: Any) -> list[float]:
    settings = config(**{"learning_rate": 1.0, **keys})
    return [learning_rate(settings, step, steps) for step in range(steps)]


def text_rates(**keys: Any) -> list[float]:
    settings = config(**{"learning_rate": 1.0, "text_encoder_lr": 0.5, **keys})
    return [text_encoder_rate(settings, step, 4) for step in range(4)]


@shows("batch_size")
def pictures_a_pass(_: Ground) -> None:
    assert [len(batches_of(alike(6), config(batch_size=size)).make(0, 0).noisy) for size in (1, 4)] == [1, 4]


@shows("gradient_accumulation_steps")
def passes_a_step(at: Ground) -> None:
    with at.batches_as(same) as made:
        at.adapter(gradient_accumulation_steps=3)
    assert made == [(step, part) for step in range(2) for part in range(3)]


@shows("epochs")
def passes_over_the_pictures(_: Ground) -> None:
    assert [total_steps(keys := config(epochs=n, batch_size=2), alike(6).order(keys)) for n in (1, 2.5)] == [3, 8]


@shows("max_train_steps")
def steps_in_all(at: Ground) -> None:
    assert [at.small.run(max_train_steps=steps).steps for steps in (1, 3)] == [1, 3]


@shows("learning_rate")
def how_far_a_step_goes(at: Ground) -> None:
    near, far = (part(at.adapter(**SGD, learning_rate=rate), "up") for rate in (1e-3, 3e-3))
    assert np.allclose(3 * near, far, rtol=1e-4, atol=1e-12) and np.abs(near).max() > 0


@shows("text_encoder_lr")
def a_text_encoder_that_learns_at_its_own_rate(at: Ground) -> None:
    def learnt(rate: float | None) -> dict[str, Any]:
        modules = at.adapter(**SGD, text_encoder_lr=rate).modules
        return {name: module for name, module in modules.items() if name.startswith("text_encoder")}

    near, far = (learnt(rate) for rate in (1e-3, 3e-3))
    assert not learnt(None) and near
    assert all(np.allclose(3 * near[name].up, far[name].up, rtol=1e-4, atol=1e-12) for name in near)


@shows("text_encoder_lr_scheduler")
def a_course_of_the_text_encoder_s_own(_: Ground) -> None:
    assert text_rates() == [0.5] * 4
    assert text_rates(text_encoder_lr_scheduler="linear") == [0.5, 0.375, 0.25, 0.125]
    assert rates(text_encoder_lr=0.5, text_encoder_lr_scheduler="linear") == [1.0] * 4


@shows("text_encoder_stop_step")
def a_text_encoder_that_stays_as_it_is_from_a_step(at: Ground) -> None:
    at.adapter(text_encoder_lr=1e-2, text_encoder_stop_step=1, max_train_steps=3, save_steps=1)
    first, _, last = (adapter_in(checkpoint).modules for checkpoint in at.sinks.checkpoints)
    for name in first:
        moved = not np.array_equal(first[name].up, last[name].up)
        assert moved == (not name.startswith("text_encoder")), name


@shows("block_lr_weights")
def blocks_that_learn_more_or_nothing(at: Ground) -> None:
    plain = at.adapter(**SGD).modules
    weighed = at.adapter(**SGD, block_lr_weights={"up_blocks": 2, "mid_block": 0}).modules
    assert set(plain) - set(weighed) == {name for name in plain if ".mid_block." in name} != set()
    for name, module in weighed.items():
        times = 2 if ".up_blocks." in name else 1
        assert np.allclose(times * plain[name].up, module.up, rtol=1e-3, atol=1e-10), name
    assert any(".up_blocks." in name for name in weighed)


@shows("loraplus_lr_ratio")
def up_factors_that_learn_faster(at: Ground) -> None:
    plain, faster = (at.adapter(**SGD, loraplus_lr_ratio=ratio) for ratio in (None, 16))
    assert np.allclose(16 * part(plain, "up"), part(faster, "up"), rtol=1e-4, atol=1e-12)
    assert np.array_equal(part(plain, "down"), part(faster, "down"))  # whose gradient is 0 while up is 0


@shows("lr_scheduler")
def the_course_of_the_rate(at: Ground) -> None:
    assert rates(lr_scheduler="constant") == [1.0] * 4
    assert rates(lr_scheduler="linear") == [1.0, 0.75, 0.5, 0.25]
    at.adapter(lr_scheduler="linear", learning_rate=1e-2)
    assert [values["learning_rate"] for _, values in at.sinks.curves] == [1e-2, 5e-3]


@shows("lr_num_cycles")
def cycles_of_the_rate(_: Ground) -> None:
    keys = {"lr_scheduler": "cosine_with_restarts"}
    assert rates(**keys)[2] == pytest.approx(0.5) and rates(**keys, lr_num_cycles=2)[2] == 1.0


@shows("lr_warmup_steps")
def steps_over_which_the_rate_rises(_: Ground) -> None:
    assert rates(lr_warmup_steps=4) == [0.25, 0.5, 0.75, 1.0]


@shows("optimizer")
def the_update_rule(at: Ground) -> None:
    _, layers = adapted(at.base)
    kinds = {rule: type(build_optimizer(config(optimizer=rule), layers.trained)) for rule in ("adamw", "adam", "sgd")}
    assert kinds == {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    ways = [at.weights(optimizer=rule, weight_decay=0.5) for rule in kinds]
    assert not any(np.allclose(ways[i], ways[i - 1], atol=1e-6) for i in range(3))


@shows("weight_decay")
def weights_that_shrink(at: Ground) -> None:
    """AdamW takes rate × decay of a weight a step; of down factors the first step takes nothing else."""
    free, decayed = (part(at.adapter(max_train_steps=1, learning_rate=1e-2, weight_decay=d), "down") for d in (0, 1))
    assert np.allclose(decayed, 0.99 * free, rtol=1e-5)


@shows("max_grad_norm")
def gradients_of_at_most_that_norm(at: Ground) -> None:
    clipped = part(at.adapter(**{**SGD, "max_grad_norm": 1e-4}, learning_rate=1.0), "up")
    free = part(at.adapter(**SGD, learning_rate=1.0), "up")
    assert np.linalg.norm(clipped) == pytest.approx(1e-4, rel=1e-3)
    assert np.linalg.norm(free) > 1e-3


@shows("max_bad_batches")
def steps_that_may_be_bad_in_a_row(at: Ground) -> None:
    with at.batches_as(lambda batch, _: replace(batch, target=batch.target * float("nan"))) as made:
        for most in (1, 3):
            made.clear()
            with pytest.raises(NonFiniteLoss, match=f"{most} steps in a row"):
                at.adapter(max_bad_batches=most, max_train_steps=9)
            assert len(made) == most


@shows("ema_decay")
def the_average_that_is_published(at: Ground) -> None:
    keys = {"max_train_steps": 3, "save_steps": 1, "weight_decay": 0}
    last = at.adapter(**keys)
    ups = [part(adapter_in(checkpoint), "up") for checkpoint in at.sinks.checkpoints]
    average = np.zeros_like(ups[0])
    for number, up in enumerate(ups, start=1):
        decay = min(0.999, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * up
    assert np.allclose(part(at.adapter(**keys, ema_decay=0.999), "up"), average, atol=1e-7)
    assert not np.allclose(part(last, "up"), average, atol=1e-5)


@shows("mixed_precision")
def the_arithmetic_of_the_passes(at: Ground) -> None:
    exact, rounded = at.weights(optimizer="sgd"), at.weights(optimizer="sgd", mixed_precision="bf16")
    assert np.allclose(exact, rounded, rtol=0.2, atol=1e-3) and not np.array_equal(exact, rounded)
    at.adapter(mixed_precision="fp16", max_train_steps=1)
    assert any("overflowed fp16" in line for line in at.sinks.lines) or "loss_scale" in at.sinks.curves[0][1]


@shows("gradient_checkpointing")
def activations_that_are_computed_twice(at: Ground) -> None:
    families = [load(at.base, gradient_checkpointing=on) for on in (False, True)]
    for family, on in zip(families, (False, True), strict=True):
        ready_to_train(family, config(gradient_checkpointing=on))
    assert [family.unet.is_gradient_checkpointing for family in families] == [False, True]
    kept, again = at.weights(optimizer="sgd"), at.weights(optimizer="sgd", gradient_checkpointing=True)
    assert np.allclose(kept, again, rtol=1e-3, atol=1e-7), "and the weights are the same"


@shows("seed")
def all_that_is_drawn(at: Ground) -> None:
    assert np.array_equal(at.weights(seed=1), at.weights(seed=1))
    assert not np.allclose(at.weights(seed=1), at.weights(seed=2), atol=1e-3)


@shows("save_steps")
def steps_between_checkpoints(at: Ground) -> None:
    for every, expected in ((1, [1, 2, 3, 4, 5]), (2, [2, 4, 5])):
        at.adapter(save_steps=every, max_train_steps=5)
        assert [checkpoint.step for checkpoint in at.sinks.checkpoints] == expected
