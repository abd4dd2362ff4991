"""What the denoiser is taught, and what each of its errors weighs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_kit import ALPHAS, alike, batches_of, config, encoded, latents
from training_kit import Bench, flat

from terroir.training.config import PredictionType
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.loss import loss_of
from terroir.training.engine.noise import NoiseSchedule
from terroir.training.errors import BaseUnreadable


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_target_and_noise_are_consistent_for_both_prediction_types(kind: str) -> None:
    alphas = torch.tensor([0.9, 0.5, 0.0 if kind == "v_prediction" else 0.1])
    schedule = NoiseSchedule(alphas, kind)
    clean, noise, t = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.arange(3)
    noisy, target = schedule.add_noise(clean, noise, t), schedule.target(clean, noise, t)
    signal, share = (alphas[t] ** 0.5).view(-1, 1, 1, 1), ((1 - alphas[t]) ** 0.5).view(-1, 1, 1, 1)
    if kind == "epsilon":
        assert torch.equal(target, noise)
    else:
        assert torch.allclose(signal * noisy - share * target, clean, atol=1e-6)


def test_min_snr_weights_are_the_paper_s_and_finite_at_zero_terminal_snr() -> None:
    alphas, t = torch.tensor([0.9, 0.5, 0.0]), torch.arange(3)
    snr = alphas / (1 - alphas)
    weights = NoiseSchedule(alphas, "v_prediction").min_snr_weights(t, 5.0)
    assert torch.allclose(weights, snr.clamp(max=5) / (snr + 1))
    above = NoiseSchedule(alphas[:2], "epsilon").min_snr_weights(t[:2], 5.0)
    assert torch.allclose(above, snr[:2].clamp(max=5) / snr[:2])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weighs_every_sample_of_a_batch_by_its_timestep(kind: str) -> None:
    batch = batches_of(alike(4), config(batch_size=4, min_snr_gamma=1.5), kind).make(0, 0)
    alphas = ALPHAS[batch.timesteps]
    snr = alphas / (1 - alphas)
    expected = snr.clamp(max=1.5) / (snr if kind == "epsilon" else snr + 1)
    assert batch.weights is not None and torch.allclose(batch.weights, expected)
    errors = batch.target.square().mean(dim=(1, 2, 3))
    assert torch.isclose(loss_of(torch.zeros_like(batch.target), batch), (errors * expected).mean())


def test_the_tiny_base_has_zero_terminal_snr_and_predicts_v(base_dir: Path) -> None:
    schedule = NoiseSchedule.load(base_dir)
    one = torch.ones(1, 1, 1, 1)
    assert schedule.add_noise(one, 0 * one, torch.tensor([999])).item() == 0.0
    assert schedule.target(one, 0 * one, torch.tensor([999])).item() == pytest.approx(-1.0)


def scheduler(folder: Path, **changes: object) -> Path:
    path = folder / "scheduler" / "scheduler_config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    usual = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
             "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "epsilon"}  # fmt: skip
    path.write_text(json.dumps(usual | changes))
    return folder


def test_a_scheduler_that_says_the_wrong_prediction_type_is_overruled(tmp_path: Path) -> None:
    says_epsilon = scheduler(tmp_path)
    one, t = torch.ones(1, 1, 1, 1), torch.tensor([500])

    def target(kind: PredictionType) -> float:
        return NoiseSchedule.load(says_epsilon, prediction_type=kind).target(one, 0 * one, t).item()

    assert target(PredictionType.BASE) == 0.0 == target(PredictionType.EPSILON)
    assert target(PredictionType.V_PREDICTION) < -0.5
    says_v = scheduler(tmp_path, prediction_type="v_prediction")
    assert NoiseSchedule.load(says_v, prediction_type=PredictionType.EPSILON).target(one, 0 * one, t).item() == 0.0


def test_epsilon_with_zero_terminal_snr_is_refused_and_the_way_out_works(tmp_path: Path) -> None:
    folder = scheduler(tmp_path, rescale_betas_zero_snr=True)
    with pytest.raises(BaseUnreadable, match="prediction_type to v_prediction"):
        NoiseSchedule.load(folder)
    NoiseSchedule.load(folder, prediction_type=PredictionType.V_PREDICTION)
    with pytest.raises(BaseUnreadable, match="'sample'"):
        NoiseSchedule.load(scheduler(tmp_path, prediction_type="sample"))


def test_the_prediction_type_reaches_the_run(small: Bench, tmp_path: Path) -> None:
    folder = shutil.copytree(small.base, tmp_path / "base")
    bench = replace(small, base=folder)
    said = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["prediction_type"]
    other = "epsilon" if said == "v_prediction" else "v_prediction"
    plain, same, changed = (bench.run(max_train_steps=1, prediction_type=kind) for kind in ("base", said, other))
    assert (flat(plain.adapter) == flat(same.adapter)).all()
    assert not np.allclose(flat(plain.adapter), flat(changed.adapter), atol=1e-7)
    assert changed.prediction_type == other


def test_noise_offset_shifts_the_noise_of_a_whole_channel() -> None:
    data = encoded([(Size(64, 64), [latents(0.0, (32, 32))])])
    plain, shifted = (batches_of(data, config(batch_size=8, noise_offset=o)).make(0, 0).target for o in (0.0, 0.5))
    shift = shifted - plain  # the target is the noise
    assert shift.std(dim=(2, 3)).max() < 1e-6 and 0.2 < shift.mean(dim=(2, 3)).std() < 0.8


def test_the_loss_is_the_mean_of_the_squared_errors() -> None:
    batch = batches_of(alike(4), config(batch_size=4)).make(0, 0)
    guess = torch.randn_like(batch.target)
    assert torch.isclose(loss_of(guess, batch), (guess - batch.target).square().mean())
    assert loss_of(batch.target, batch) == 0


def test_place_and_sample_weigh_together() -> None:
    batch = batches_of(alike(2), config(batch_size=2)).make(0, 0)
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, :2] = 1
    weighted = replace(batch, mask=mask, weights=torch.tensor([2.0, 0.5]))
    errors = batch.target.square()[:, :, :2].sum(dim=(1, 2, 3)) / batch.target[0].numel()
    assert torch.isclose(loss_of(torch.zeros_like(batch.target), weighted), (errors * weighted.weights).mean())


def test_half_precision_predictions_are_compared_in_single() -> None:
    batch = batches_of(alike(2), config(batch_size=2)).make(0, 0)
    assert loss_of(torch.full_like(batch.target, 1e3).half(), batch).dtype == torch.float32
    assert loss_of(torch.full_like(batch.target, 1e3).half(), batch) > 6e4  # more than fp16 holds
