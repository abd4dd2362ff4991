"""The augmentation recipe: seeded variants of a picture, the same in every run that has the same recipe.

A variant depends on the recipe, the picture's pixels and its number alone, never on the run's seed, so what one run has
encoded is there for the next. Each operation draws for itself: switching one on leaves the others' draws as they are.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from PIL import Image, ImageEnhance

from terroir.training.config import TrainConfig
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.framing import Box
from terroir.training.engine.data.pictures import Pixels
from terroir.training.engine.randomness import derive

_LEAST_ERASED: Final = 0.02
_FLATTEST: Final = 0.3
"""Of the paper: the smallest share that is erased, and the smallest ratio of the rectangle's sides."""


@dataclass(frozen=True)
class Recipe:
    """What variants differ in; the fields are the configuration's `augment_…` keys."""

    variants: int
    color_jitter: float
    erase: float
    erase_area: float
    crop: float

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """The configured recipe; one that does nothing has a single variant, the picture as it is."""
        does = config.augment_color_jitter or config.augment_erase or config.augment_crop
        return cls(
            variants=config.augment_variants if does else 1,
            color_jitter=config.augment_color_jitter,
            erase=config.augment_erase,
            erase_area=config.augment_erase_area,
            crop=config.augment_crop,
        )

    @classmethod
    def nothing(cls) -> Self:
        """Leaves a picture as it is."""
        return cls(1, 0.0, 0.0, 0.0, 0.0)

    @property
    def does_nothing(self) -> bool:
        """Whether the only variant is the picture as it is."""
        return not (self.color_jitter or self.erase or self.crop)


@dataclass(frozen=True)
class Variant:
    """One variant of one picture."""

    recipe: Recipe
    picture: str
    """Digest of its pixels."""
    number: int

    def region(self, size: Size) -> Box | None:
        """What a random crop leaves: both sides lose the same share, up to `crop`; None for the whole picture."""
        if not self.recipe.crop:
            return None
        draw = self._source("crop")
        kept = 1 - draw.uniform(0, self.recipe.crop)
        width, height = (max(1.0, side * kept) for side in size)
        left, top = draw.uniform(0, size.width - width), draw.uniform(0, size.height - height)
        return left, top, left + width, top + height

    def jitter(self, image: Image.Image) -> Image.Image:
        """Brightness, contrast and saturation changed, each by a factor of its own within 1 ± `color_jitter`."""
        if not self.recipe.color_jitter:
            return image
        draw, most = self._source("colour"), self.recipe.color_jitter
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhance(image).enhance(draw.uniform(1 - most, 1 + most))
        return image

    def erase(self, pixels: Pixels) -> tuple[Pixels, tuple[slice, slice] | None]:
        """Erase a rectangle in a share of the variants; returns the pixels and its rows and columns, or None.

        Random erasing after Zhong et al., arXiv 1708.04896, with their bounds of area and ratio. They find random
        values best for classifiers and the mean nearly as good; a generator would learn noise as a texture of the
        style, so the rectangle gets the picture's mean colour.
        """
        draw = self._source("erase")
        if draw.random() >= self.recipe.erase:
            return pixels, None
        rows, columns = _rectangle(draw, pixels.shape[0], pixels.shape[1], self.recipe.erase_area)
        erased = pixels.copy()
        erased[rows, columns] = np.round(pixels.mean(axis=(0, 1))).astype(np.uint8)
        return erased, (rows, columns)

    def _source(self, operation: str) -> random.Random:
        return random.Random(derive(0, "augmentation", operation, self.picture, self.number))


def _rectangle(draw: random.Random, height: int, width: int, most: float) -> tuple[slice, slice]:
    area = draw.uniform(min(_LEAST_ERASED, most), most) * height * width
    ratio = math.exp(draw.uniform(math.log(_FLATTEST), -math.log(_FLATTEST)))
    # At most half of the picture is erased, so a side that is cut to the picture's leaves room for the other.
    down = min(float(height), max(math.sqrt(area * ratio), area / width))
    rows, columns = max(1, int(down)), max(1, int(area / down))
    top, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
    return slice(top, top + rows), slice(left, left + columns)
