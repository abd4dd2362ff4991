"""Rows of the keys of the loss."""

from __future__ import annotations

import torch
from data_kit import ALPHAS, alike, batches_of, config, encoded, gradient, latents, picture
from key_table import Ground, shows
from PIL import Image

from terroir.training.config import PredictionType
from terroir.training.engine.data.augmentation import Recipe
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.examples import ExampleMaker
from terroir.training.engine.noise import NoiseSchedule


@shows("prediction_type")
def what_the_denoiser_is_taught(at: Ground) -> None:
    kinds = {kind: NoiseSchedule.load(at.base, prediction_type=kind).prediction_type for kind in PredictionType}
    assert set(kinds.values()) == {"epsilon", "v_prediction"} and kinds[PredictionType.V_PREDICTION] == "v_prediction"
    result = at.small.run(prediction_type="v_prediction", max_train_steps=1)
    assert (result.prediction_type, at.small.run(max_train_steps=1).prediction_type) == ("v_prediction", "epsilon")


@shows("min_snr_gamma")
def weights_by_noise_level(_: Ground) -> None:
    def weights(gamma: float | None) -> list[float] | None:
        found = batches_of(alike(8), config(batch_size=8, min_snr_gamma=gamma)).make(0, 0)
        snr = ALPHAS[found.timesteps] / (1 - ALPHAS[found.timesteps])
        assert gamma is None or torch.allclose(found.weights, snr.clamp(max=gamma) / snr)
        return None if found.weights is None else found.weights.tolist()

    assert weights(None) is None and weights(1) != weights(5)


@shows("noise_offset")
def noise_that_a_whole_channel_shares(_: Ground) -> None:
    def shared(offset: float) -> float:
        large = encoded([(Size(64, 64), [latents(0.0, (32, 32))])])
        batch = batches_of(large, config(batch_size=16, noise_offset=offset)).make(0, 0)
        return float(batch.target.mean(dim=(2, 3)).std())

    assert shared(0) < 0.1 < 0.3 < shared(0.5) < 0.8


@shows("prior_loss_weight")
def the_weight_of_ordinary_pictures(_: Ground) -> None:
    for weight in (0.5, 2.0):
        batch = batches_of(alike(4, 2), config(batch_size=4, reg_share=0.5, prior_loss_weight=weight)).make(0, 0)
        assert batch.weights is not None and sorted(set(batch.weights.tolist())) == sorted({1.0, weight})


def mask_of(**keys: object) -> torch.Tensor | None:
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    settings = config(resolution=32, **keys)
    return ExampleMaker(settings, 4).make(picture(gradient((32, 32)), mask=mask), Recipe.of(settings))[1][0].mask


@shows("masked_loss")
def the_mask_beside_a_picture(_: Ground) -> None:
    assert mask_of() is None
    mask = mask_of(masked_loss=True)
    assert mask is not None and mask[0, 0].tolist() == [1] * 4 + [0] * 4


@shows("unmasked_weight")
def what_a_mask_leaves_out_and_still_counts(_: Ground) -> None:
    mask = mask_of(masked_loss=True, unmasked_weight=0.25)
    assert mask is not None and mask[0, 0].tolist() == [1] * 4 + [0.25] * 4
