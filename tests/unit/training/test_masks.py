"""Masked loss: where a picture's mask is black, nothing is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_kit import array, batches_of, config, encoded, gradient, latents, noise_image, picture
from PIL import Image
from training_kit import Bench, flat

from terroir.training.engine.data.augmentation import Recipe
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.examples import Example, ExampleMaker
from terroir.training.engine.data.masks import latent_weights
from terroir.training.engine.loss import loss_of
from terroir.training.engine.ports import Picture
from terroir.training.errors import PictureUnreadable


def examples(made: Picture, **keys: object) -> list[Example]:
    settings = config(**{"masked_loss": True, "resolution": 32, **keys})
    return ExampleMaker(settings, 4).make(made, Recipe.of(settings))[1]


def left_half(size: tuple[int, int]) -> Image.Image:
    """White on the left, black on the right."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def mask_of(one: Example) -> torch.Tensor:
    assert one.mask is not None
    return one.mask


def test_a_mask_is_brought_to_latents_by_area() -> None:
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:2, :4] = 255  # half of the first latent
    pixels[4:, 8:] = 51  # a fifth of two
    weights = latent_weights(pixels, 4, 0.0)
    assert weights.shape == (1, 2, 4)
    assert weights[0].tolist() == [[0.5, 0, 0, 0], [0, 0, pytest.approx(0.2), pytest.approx(0.2)]]


def test_unmasked_weight_is_what_black_weighs() -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :4] = 255
    assert latent_weights(pixels, 4, 0.25)[0].tolist() == [[1.0, 0.25]]


def test_the_alpha_channel_is_a_mask() -> None:
    image = gradient((32, 32)).convert("RGBA")
    image.putalpha(left_half((32, 32)))
    (one,) = examples(picture(image))
    assert mask_of(one)[0, :, :4].eq(1).all() and mask_of(one)[0, :, 4:].eq(0).all()


def test_a_mask_of_its_own_goes_before_the_alpha_channel() -> None:
    image = gradient((32, 32)).convert("RGBA")
    image.putalpha(left_half((32, 32)))
    (one,) = examples(picture(image, mask=left_half((32, 32)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    assert mask_of(one)[0, :, :4].eq(0).all() and mask_of(one)[0, :, 4:].eq(1).all()


def test_without_masked_loss_masks_and_transparency_change_nothing() -> None:
    (one,) = examples(picture(gradient((32, 32)), mask=left_half((32, 32))), masked_loss=False)
    assert one.mask is None


def test_an_opaque_picture_counts_everywhere() -> None:
    (one,) = examples(picture(gradient((32, 32))))
    assert one.mask is None


def test_a_mask_is_framed_turned_and_mirrored_with_its_picture() -> None:
    """Cropped, bucketed and mirrored, the white part stays on the picture's left part, which red tells."""
    keys = {"augment_crop": 0.5, "augment_variants": 6, "horizontal_flip": True}
    made = examples(picture(gradient((96, 48)), mask=left_half((96, 48))), **keys)
    assert len(made) == 12
    for one in made:
        reds = one.pixels[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3))
        weights = mask_of(one)[0].numpy()
        assert (weights[reds < 110] > 0.9).all() and (weights[reds > 145] < 0.1).all()


def test_a_mask_of_another_resolution_fits_and_one_of_another_shape_is_refused() -> None:
    (one,) = examples(picture(gradient((64, 64)), mask=left_half((32, 32))))
    assert mask_of(one)[0, :, :4].eq(1).all() and mask_of(one)[0, :, 4:].eq(0).all()
    with pytest.raises(PictureUnreadable, match=r"a\.png is 32 × 20, the picture 64 × 64") as error:
        examples(picture(gradient((64, 64)), mask=left_half((32, 20))))
    assert error.value.reason == "MASK_SHAPE"


@pytest.mark.parametrize("made", [
    picture(gradient((32, 32)), mask=Image.new("L", (32, 32), 0)),
    picture(Image.new("RGBA", (32, 32), (9, 9, 9, 0))),
])  # fmt: skip
def test_a_mask_that_leaves_nothing_is_refused(made: Picture) -> None:
    with pytest.raises(PictureUnreadable, match=r"a\.png is black everywhere") as error:
        examples(made)
    assert error.value.reason == "MASK_EMPTY"


def test_a_mask_that_cannot_be_decoded_names_its_picture() -> None:
    bad = Picture("a.png", picture(gradient((32, 32))).data, "", b"no picture")
    with pytest.raises(PictureUnreadable, match=r"the mask of picture a\.png"):
        examples(bad)


def test_an_erased_rectangle_weighs_nothing() -> None:
    keys = {"augment_erase": 1.0, "augment_erase_area": 0.3, "augment_variants": 4}
    plain = array(gradient((32, 32)))
    for one in examples(picture(gradient((32, 32))), **keys):
        erased = (one.pixels != plain).any(axis=-1).reshape(8, 4, 8, 4).mean(axis=(1, 3))
        weights = mask_of(one)[0].numpy()
        assert (weights[erased > 0.95] < 0.3).all() and (weights[erased == 0] == 1).all() and weights.min() < 0.3
    assert all(one.mask is None for one in examples(picture(gradient((32, 32))), masked_loss=False, **keys))


def test_what_is_masked_adds_nothing_to_the_loss() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[:, :, :1] = 1
    masked = encoded([(Size(16, 16), [latents(1.0, mask=mask)])])
    batch = batches_of(masked, config(batch_size=2)).make(0, 0)
    guess = torch.zeros_like(batch.target)
    guess[..., 1:] = 1e6
    errors = batch.target[..., :1].square().sum() / batch.target.numel()
    assert torch.isclose(loss_of(guess, batch), errors)


def test_pictures_with_and_without_masks_share_a_batch() -> None:
    mask = torch.full((1, 4, 4), 0.5)
    both = encoded([(Size(16, 16), [latents(0.0, mask=mask)]), (Size(16, 16), [latents(1.0)])])
    batch = batches_of(both, config(batch_size=2)).make(0, 0)
    assert batch.mask is not None and sorted(batch.mask.mean(dim=(1, 2, 3)).tolist()) == [0.5, 1.0]


def test_masked_loss_and_unmasked_weight_change_what_is_learned(small: Bench) -> None:
    data = [picture(noise_image(1, (32, 32)), mask=left_half((32, 32)))]

    def learned(**keys: object) -> np.ndarray:
        return flat(small.run(data=data, max_train_steps=2, caption_dropout=0, **keys).adapter)

    plain, masked = learned(), learned(masked_loss=True)
    half = learned(masked_loss=True, unmasked_weight=0.5)
    assert not np.allclose(plain, masked, atol=1e-7) and not np.allclose(half, masked, atol=1e-7)
    assert not np.allclose(plain, half, atol=1e-7)
    assert (learned(masked_loss=True, unmasked_weight=1.0) == plain).all()
