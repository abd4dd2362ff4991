"""The tensors of each forward pass, as a function of the seed and the pass's place in the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from terroir.training.config import TrainConfig
from terroir.training.engine.data.dataset import Encoded
from terroir.training.engine.data.latents import Latents
from terroir.training.engine.data.order import Order
from terroir.training.engine.families.interface import TextStates
from terroir.training.engine.noise import NoiseSchedule
from terroir.training.engine.randomness import derive, generator


@dataclass(frozen=True)
class Batch:
    """One forward pass, on the device."""

    noisy: Tensor
    """`[batch, channels, height, width]`."""
    timesteps: Tensor
    """`[batch]`, int64."""
    texts: TextStates | None
    """The captions' states, if they do not change in the run."""
    tokens: Tensor | None
    """Token ids `[batch, encoders, tokens]`, instead of `texts` while text encoders train."""
    geometry: Tensor | None
    """`[batch, 6]`, SDXL's alone: see `Family.denoise`."""
    target: Tensor
    """Shaped as `noisy`."""
    weights: Tensor | None
    """Loss weights `[batch]`; None: all 1."""
    mask: Tensor | None
    """Loss weights `[batch, 1, height, width]`; None: all 1."""


@dataclass(frozen=True)
class _Sample:
    """What is drawn for one sample."""

    latents: Latents
    text: int
    """Row of the texts."""
    timestep: int
    fresh: Tensor
    """Draw from the posterior `[channels, height, width]`."""
    noise: Tensor
    weight: float


class Batches:
    """Makes batches; holds no state, so any of them can be made at any time, by any worker.

    Sample numbers run over all workers of a pass, so two workers see between them what one with twice the batch sees.
    """

    def __init__(
        self, encoded: Encoded, order: Order, schedule: NoiseSchedule, config: TrainConfig, device: str
    ) -> None:
        self._encoded = encoded
        self._order = order
        self._schedule = schedule
        self._config = config
        self._device = torch.device(device)
        self._samples_of_step = lru_cache(maxsize=2)(self._count_samples)

    def make(self, step: int, part: int, rank: int = 0, world: int = 1) -> Batch:
        """Pass `part` (from 0) of optimiser step `step` (from 0), for worker `rank` of `world`."""
        size, parts = self._config.batch_size, self._config.gradient_accumulation_steps
        everyone = self._order.pictures(step * parts + part, size * world)
        mine = everyone[rank * size : (rank + 1) * size]
        # The step's loss is the mean over its samples; train() averages over workers and passes, which may be short.
        share = len(mine) * world * parts / self._samples_of_step(step, world)
        first = (part * world + rank) * size
        # A worker for whom a short pass leaves nothing still takes part in the exchange of gradients.
        samples = [self._draw(step, first + i, picture, share) for i, picture in enumerate(mine or everyone[:1])]
        return self._batch(samples)

    def _count_samples(self, step: int, world: int) -> int:
        parts, size = self._config.gradient_accumulation_steps, self._config.batch_size * world
        return sum(self._order.length(step * parts + part, size) for part in range(parts))

    def _batch(self, samples: Sequence[_Sample]) -> Batch:
        timesteps = self._send(torch.tensor([sample.timestep for sample in samples]))
        mean, deviation = self._send(torch.stack([sample.latents.posterior for sample in samples], dim=1))
        fresh = self._send(torch.stack([sample.fresh for sample in samples]))
        noise = self._send(torch.stack([sample.noise for sample in samples]))
        latents = mean + deviation * fresh
        rows = torch.tensor([sample.text for sample in samples])
        return Batch(
            noisy=self._schedule.add_noise(latents, noise, timesteps),
            timesteps=timesteps,
            texts=self._texts(rows),
            tokens=None if (tokens := self._encoded.texts.tokens) is None else self._send(tokens[rows]),
            geometry=self._send(torch.tensor([sample.latents.geometry for sample in samples])),
            target=self._schedule.target(latents, noise, timesteps),
            weights=self._weights([sample.weight for sample in samples], timesteps),
            mask=self._mask(samples),
        )

    def _texts(self, rows: Tensor) -> TextStates | None:
        if self._encoded.texts.states is None:
            return None
        chosen = self._encoded.texts.states.rows(rows)
        return TextStates(self._send(chosen.states), None if chosen.pooled is None else self._send(chosen.pooled))

    def _weights(self, weights: Sequence[float], timesteps: Tensor) -> Tensor | None:
        gamma = self._config.min_snr_gamma
        by_noise = None if gamma is None else self._schedule.min_snr_weights(timesteps, gamma)
        if all(weight == 1.0 for weight in weights):
            return by_noise
        by_sample = self._send(torch.tensor(weights))
        return by_sample if by_noise is None else by_sample * by_noise

    def _mask(self, samples: Sequence[_Sample]) -> Tensor | None:
        masks = [sample.latents.mask for sample in samples]
        if all(mask is None for mask in masks):
            return None
        whole = torch.ones_like(samples[0].noise[:1])
        return self._send(torch.stack([whole if mask is None else mask for mask in masks]))

    def _draw(self, step: int, sample: int, picture: int, share: float) -> _Sample:
        config, encoded = self._config, self._encoded
        chosen = encoded.pictures[picture]
        source = generator(config.seed, "sample", step, sample)
        mirrored, dropped = torch.rand(2, generator=source).tolist()
        timestep = int(torch.randint(self._schedule.timesteps, (1,), generator=source))
        shape = chosen.examples[0].posterior.shape[1:]
        fresh, noise = torch.randn((2, *shape), generator=source)
        if config.noise_offset:
            noise = noise + config.noise_offset * torch.randn((shape[0], 1, 1), generator=source)
        mirrors = 2 if config.horizontal_flip else 1
        variant = self._one_of(len(chosen.examples) // mirrors, "variant", step, sample)
        captions = encoded.captions[picture]
        text = captions[self._one_of(len(captions), "caption", step, sample)]
        return _Sample(
            latents=chosen.examples[variant * mirrors + int(config.horizontal_flip and mirrored < 0.5)],
            text=text if dropped >= config.caption_dropout else 0,
            timestep=timestep,
            fresh=fresh,
            noise=noise,
            weight=share if picture < encoded.own else share * config.prior_loss_weight,
        )

    def _one_of(self, count: int, purpose: str, step: int, sample: int) -> int:
        return derive(self._config.seed, purpose, step, sample) % count if count > 1 else 0

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device; a graphics card copies from pinned memory while the processor goes on."""
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)
