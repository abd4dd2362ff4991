"""The tensors of each forward pass, as a function of the seed and the pass's place in the run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terroir.training.config import TrainConfig
from terroir.training.engine.encoding import Encoded
from terroir.training.engine.noise import NoiseSchedule
from terroir.training.engine.randomness import PictureOrder, generator


@dataclass(frozen=True)
class Batch:
    """One forward pass."""

    noisy: Tensor
    """`[batch, channels, height, width]`."""
    timesteps: Tensor
    """`[batch]`, int64."""
    texts: Tensor
    """`[batch, tokens, width]`."""
    target: Tensor
    """Shaped as `noisy`."""
    weights: Tensor | None
    """Loss weights `[batch]`."""


class Batches:
    """Makes batches; holds no state, so any step can be made at any time."""

    def __init__(self, encoded: Encoded, schedule: NoiseSchedule, config: TrainConfig) -> None:
        self._encoded = encoded
        self._schedule = schedule
        self._config = config
        self._order = PictureOrder(config.seed, len(encoded.captions))
        self._captions = torch.tensor(encoded.captions, device=encoded.texts.device)

    def make(self, step: int, part: int) -> Batch:
        """Pass `part` (from 0) of optimiser step `step` (from 0)."""
        size = self._config.batch_size
        first = step * self._config.samples_per_step + part * size
        pictures = torch.tensor([self._order.picture(first + i) for i in range(size)])
        drawn = [self._draw(step, part * size + i) for i in range(size)]
        variants, timesteps, kept = (torch.tensor(column) for column in zip(*(d[:3] for d in drawn), strict=True))
        device = self._encoded.means.device
        fresh, noise = (torch.stack(column).to(device) for column in zip(*(d[3:] for d in drawn), strict=True))
        pictures, variants, timesteps, kept = (t.to(device) for t in (pictures, variants, timesteps, kept))
        latents = self._encoded.means[variants, pictures] + self._encoded.deviations[variants, pictures] * fresh
        gamma = self._config.min_snr_gamma
        return Batch(
            noisy=self._schedule.add_noise(latents, noise, timesteps),
            timesteps=timesteps,
            texts=self._encoded.texts[self._captions[pictures] * kept],  # row 0 is the empty caption
            target=self._schedule.target(latents, noise, timesteps),
            weights=None if gamma is None else self._schedule.min_snr_weights(timesteps, gamma),
        )

    def _draw(self, step: int, sample: int) -> tuple[int, int, int, Tensor, Tensor]:
        """Variant, timestep, whether the caption is kept, the posterior's sample and the noise of one sample."""
        config, shape = self._config, self._encoded.means.shape[2:]
        source = generator(config.seed, "sample", step, sample)
        mirrored, dropped = torch.rand(2, generator=source).tolist()
        timestep = int(torch.randint(self._schedule.timesteps, (1,), generator=source))
        fresh, noise = torch.randn((2, *shape), generator=source)
        if config.noise_offset:
            noise = noise + config.noise_offset * torch.randn((shape[0], 1, 1), generator=source)
        variant = int(config.horizontal_flip and mirrored < 0.5)
        return variant, timestep, int(dropped >= config.caption_dropout), fresh, noise
