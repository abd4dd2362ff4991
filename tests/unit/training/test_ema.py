"""The published average of the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from training_kit import Bench, MemorySinks, flat

from terroir.training.engine.adapters.layers import Weight
from terroir.training.engine.adapters.targets import Target
from terroir.training.engine.ema import Average
from terroir.training.engine.state import adapter_in


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_that_of_the_weights_after_every_update(decay: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    average = Average([Weight("w", parameter, Target("unet", "x", 1, 1), "up")], decay)
    expected = 0.0
    for update in range(1, 40):
        parameter.data.fill_(update)
        average.update(update)
        kept = min(decay, (1 + update) / (10 + update))
        expected = kept * expected + (1 - kept) * update
        assert average.values["w"].tolist() == pytest.approx([expected] * 3, rel=1e-5)


def test_a_short_run_s_average_has_left_its_start() -> None:
    """With a decay of 0.999 from the first step on, nine tenths of a hundred steps would still be the start."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = Average([Weight("w", parameter, Target("unet", "x", 1, 1), "up")], 0.999)
    parameter.data.fill_(1.0)
    for update in range(1, 101):
        average.update(update)
    assert average.values["w"].item() > 0.99


def test_what_is_published_is_the_average_and_what_trains_are_the_weights(small: Bench) -> None:
    keys: dict[str, Any] = {"max_train_steps": 6, "ema_decay": 0.5}
    sinks = MemorySinks()
    averaged, plain = small.run(sinks, **keys, save_steps=1), small.run(max_train_steps=6)
    assert averaged.loss == plain.loss, "the average teaches nothing"
    assert not np.allclose(flat(averaged.adapter), flat(plain.adapter))
    steps = [flat(small.run(max_train_steps=n).adapter) for n in range(1, 7)]
    expected = flat(small.run(max_train_steps=1, learning_rate=1e-30).adapter)
    for update, weights in enumerate(steps, start=1):
        kept = min(0.5, (1 + update) / (10 + update))
        expected = kept * expected + (1 - kept) * weights
    assert np.allclose(flat(averaged.adapter), expected, atol=1e-6)
    assert (flat(adapter_in(sinks.checkpoints[-1])) == flat(averaged.adapter)).all()


def test_a_skipped_step_is_no_update_of_the_average(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from terroir.training.engine.update import GuardedUpdate, Outcome

    judged = GuardedUpdate._judged
    calls = 0

    def second_is_bad(self: GuardedUpdate, loss: float, norm: float) -> Outcome:
        nonlocal calls
        calls += 1
        return Outcome.BAD if calls == 2 else judged(self, loss, norm)

    updates: list[int] = []
    monkeypatch.setattr(GuardedUpdate, "_judged", second_is_bad)
    monkeypatch.setattr(Average, "update", lambda self, updates_so_far: updates.append(updates_so_far))
    small.run(ema_decay=0.9)
    assert updates == [1, 2, 3]
