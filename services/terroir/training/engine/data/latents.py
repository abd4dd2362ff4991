"""Latents of pictures: mean and deviation of the autoencoder's posterior, from which every step samples anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from terroir.training.engine.data.ahead import ahead
from terroir.training.engine.data.augmentation import Recipe
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.examples import Example, ExampleMaker
from terroir.training.engine.data.keys import cache_key
from terroir.training.engine.data.pictures import Pixels, pixels_digest
from terroir.training.engine.ports import ArrayCache, Arrays, Picture, TrainRun
from terroir.training.errors import LatentsNotFinite


@dataclass(frozen=True)
class Latents:
    """One example on the host."""

    posterior: Tensor
    """Mean and standard deviation `[2, channels, height, width]`, scaled as the denoiser expects."""
    geometry: tuple[float, ...]
    mask: Tensor | None


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as the denoiser sees it."""

    size: Size
    examples: tuple[Latents, ...]
    """Of each variant, and after each its mirror image if that is asked for."""


class PictureEncoder:
    """Encodes example by example, so that what another run has cached changes no bit of the rest."""

    def __init__(self, vae: AutoencoderKL, run: TrainRun, cache: ArrayCache) -> None:
        self._vae = vae
        self._run = run
        self._cache = cache
        self._maker = ExampleMaker(run.config, latent_factor=2 ** (len(vae.config.block_out_channels) - 1))
        self._scale = float(vae.config.scaling_factor)
        self._shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    def count(self, recipe: Recipe) -> int:
        """Examples a picture."""
        return self._maker.count(recipe)

    def encode(
        self, pictures: Sequence[tuple[Picture, Recipe]], after_each: Callable[[], None]
    ) -> Iterator[EncodedPicture]:
        """Encode in order, calling `after_each` example.

        Pictures are decoded and looked up in the cache by threads of their own while others are encoded. Raises
        PictureUnreadable and LatentsNotFinite.
        """
        for size, name, wanted in ahead(lambda one: self._look_up(*one), pictures, self._run.threads):
            known: dict[str, Arrays] = {}
            examples = []
            for example, key, found in wanted:
                # Variants may be equal; then the cache did not know the second of them yet.
                if (arrays := known.get(key) or found) is None:
                    arrays = self._posterior(name, example.pixels)
                    self._cache.put(key, arrays)
                known[key] = arrays
                posterior = torch.from_numpy(np.stack([arrays["mean"], arrays["deviation"]]))
                examples.append(Latents(posterior, example.geometry, example.mask))
                after_each()
            yield EncodedPicture(size, tuple(examples))

    def _look_up(self, picture: Picture, recipe: Recipe) -> tuple[Size, str, list[tuple[Example, str, Arrays | None]]]:
        size, examples = self._maker.make(picture, recipe)
        keys = [self._key(example) for example in examples]
        found = [(example, key, self._cache.get(key)) for example, key in zip(examples, keys, strict=True)]
        return size, picture.name, found

    def _key(self, example: Example) -> str:
        weights = self._run.component_digests["vae"]
        scaling = f"{self._scale!r} {self._shift!r}"
        return cache_key("latents", self._run.device, self._vae.dtype, weights, scaling, pixels_digest(example.pixels))

    def _posterior(self, name: str, pixels: Pixels) -> Arrays:
        found = self._encoded(pixels)
        if not _finite(found) and self._vae.dtype != torch.float32:
            found = self._encoded_in_fp32(pixels)
        if not _finite(found):
            raise LatentsNotFinite(
                f"the autoencoder makes latents of picture {name} that are not finite, also in fp32; remove the "
                "picture, and if others follow look at the base's vae",
                metadata={"picture": name},
            )
        return found

    def _encoded_in_fp32(self, pixels: Pixels) -> Arrays:
        """In half precision SDXL's autoencoder overflows on some pictures."""
        dtype = self._vae.dtype
        try:
            self._vae.to(torch.float32)
            return self._encoded(pixels)
        finally:
            self._vae.to(dtype)

    def _encoded(self, pixels: Pixels) -> Arrays:
        scaled = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            posterior = self._vae.encode(scaled.to(self._run.device, self._vae.dtype)).latent_dist
        mean, deviation = posterior.mean.float(), posterior.std.float()
        return {
            "mean": ((mean - self._shift) * self._scale)[0].cpu().numpy(),
            "deviation": (deviation * self._scale)[0].cpu().numpy(),
        }


def _finite(arrays: Arrays) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays.values())
