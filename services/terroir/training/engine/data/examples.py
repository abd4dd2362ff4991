"""From a picture to the pixels of each of its variants, and what the denoiser is told about each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from terroir.training.config import TrainConfig
from terroir.training.engine.data.augmentation import Recipe, Variant
from terroir.training.engine.data.buckets import Buckets, Size
from terroir.training.engine.data.framing import Frame
from terroir.training.engine.data.masks import cut_mask, latent_weights, mask_of
from terroir.training.engine.data.pictures import Pixels, decode
from terroir.training.engine.ports import Picture


@dataclass(frozen=True)
class Example:
    """One variant of one picture, the mirrored ones included."""

    pixels: Pixels
    geometry: tuple[float, ...]
    """SDXL's six numbers, as `Frame.geometry`."""
    mask: Tensor | None
    """Loss weights `[1, height, width]` of the latents; None: all of it counts alike."""


class ExampleMaker:
    """Makes examples; everything follows from the configuration and the picture, so threads may share it."""

    def __init__(self, config: TrainConfig, latent_factor: int) -> None:
        """`latent_factor` is the pixels a latent's side."""
        self._config = config
        self._factor = latent_factor
        self._buckets = Buckets(config)
        self._mirrors = (False, True) if config.horizontal_flip else (False,)

    def count(self, recipe: Recipe) -> int:
        """Examples a picture."""
        return recipe.variants * len(self._mirrors)

    def make(self, picture: Picture, recipe: Recipe) -> tuple[Size, list[Example]]:
        """The size that the picture is trained at, and of each variant an example, then its mirror image if asked for.

        Raises PictureUnreadable.
        """
        decoded = decode(picture)
        target = self._buckets.size_of(decoded.size)
        mask = mask_of(picture, decoded) if self._config.masked_loss else None
        digest = "" if recipe.does_nothing else decoded.digest()
        examples = []
        for number in range(recipe.variants):
            variant = Variant(recipe, digest, number)
            frame = Frame.centred(decoded.size, target, variant.region(decoded.size))
            image = variant.jitter(frame.cut(decoded.rgb, Image.Resampling.LANCZOS))
            pixels, erased = variant.erase(np.asarray(image, dtype=np.uint8))
            weights = self._weights(mask, frame, erased)
            examples += [_mirrored(pixels, weights, frame, mirrored) for mirrored in self._mirrors]
        return target, examples

    def _weights(self, mask: Image.Image | None, frame: Frame, erased: tuple[slice, slice] | None) -> Tensor | None:
        cut = cut_mask(mask, frame, erased) if self._config.masked_loss else None
        return None if cut is None else latent_weights(cut, self._factor, self._config.unmasked_weight)


def _mirrored(pixels: Pixels, mask: Tensor | None, frame: Frame, mirrored: bool) -> Example:
    if mirrored:
        pixels, mask = np.ascontiguousarray(pixels[:, ::-1]), None if mask is None else mask.flip(-1)
    return Example(pixels, frame.geometry(mirrored), mask)
