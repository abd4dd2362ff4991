"""What the tests of the data side share: small pictures in every form, and data sets that were never pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from terroir.training.config import TrainConfig
from terroir.training.engine.data.batches import Batches
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.dataset import Encoded
from terroir.training.engine.data.latents import EncodedPicture, Latents
from terroir.training.engine.data.texts import TextTable
from terroir.training.engine.families.interface import TextStates
from terroir.training.engine.noise import NoiseSchedule
from terroir.training.engine.ports import Picture

ALPHAS = torch.linspace(0.99, 0.05, 100)
BUCKETS: dict[str, Any] = {
    "enable_bucket": True, "resolution": 64, "bucket_reso_steps": 8, "min_bucket_reso": 32, "max_bucket_reso": 128,
}  # fmt: skip


def config(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({"seed": 3, "caption_dropout": 0, **keys})


def as_file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(image: Image.Image, caption: str = "a house", mask: Image.Image | None = None) -> Picture:
    return Picture("a.png", as_file(image), caption, None if mask is None else as_file(mask))


def noise_image(seed: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def gradient(size: tuple[int, int]) -> Image.Image:
    """Red tells the column, green the row, blue nothing."""
    width, height = size
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round().astype(np.uint8)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height).round().astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


def latents(value: float, side: tuple[int, int] = (4, 4), mask: torch.Tensor | None = None) -> Latents:
    """Certain latents, all of one value."""
    mean = torch.full((2, *side), value)
    geometry = (*map(float, side), 0.0, 0.0, *map(float, side))
    return Latents(torch.stack([mean, torch.zeros_like(mean)]), geometry, mask)


def encoded(
    pictures: Sequence[tuple[Size, Sequence[Latents]]],
    captions: Sequence[tuple[int, ...]] | None = None,
    regularisation: int = 0,
) -> Encoded:
    rows = captions or [(number + 1,) for number in range(len(pictures))]
    texts = 1 + max(max(row) for row in rows)
    states = torch.arange(texts, dtype=torch.float32)[:, None, None].expand(texts, 3, 2).clone()
    return Encoded(
        pictures=tuple(EncodedPicture(size, tuple(examples)) for size, examples in pictures),
        captions=tuple(rows),
        texts=TextTable(TextStates(states), None),
        regularisation=regularisation,
    )


def alike(count: int, regularisation: int = 0) -> Encoded:
    """Pictures of one size, of which picture `i` is all `i` and has the caption of row `i + 1`."""
    return encoded([(Size(16, 16), [latents(float(i))]) for i in range(count)], regularisation=regularisation)


def batches_of(data: Encoded, keys: TrainConfig, kind: str = "epsilon") -> Batches:
    return Batches(data, data.order(keys), NoiseSchedule(ALPHAS, kind), keys, "cpu")


def array(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8)


Change = Callable[[Image.Image], Image.Image]
