"""SDXL: two text encoders side by side, a pooled state, the picture's geometry (Podell et al., arXiv 2307.01952)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from terroir.training.engine.families.clip import ClipText, stacked
from terroir.training.engine.families.interface import TextStates
from terroir.training.engine.noise import NoiseSchedule

PENULTIMATE: Final = 2
"""The layer that SDXL was taught with, counted as `clip_skip` counts."""


@dataclass(frozen=True)
class StableDiffusionXL:
    """A base that diffusers loads as StableDiffusionXLPipeline."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    first: ClipText
    second: ClipText
    schedule: NoiseSchedule
    clip_skip: int = PENULTIMATE
    name: str = "sdxl"

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """CLIP-L and the one that projects, OpenCLIP-G."""
        return {"text_encoder": self.first.encoder, "text_encoder_2": self.second.encoder}

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """As `Family.tokenize`, with two encoders; each pads in its own way."""
        return stacked([self.first, self.second], captions)

    def encode_texts(self, tokens: Tensor) -> TextStates:
        """Raw states of both encoders side by side, and the second's projected state."""
        narrow, _ = self.first.raw_states(tokens[:, 0], self.clip_skip)
        wide, pooled = self.second.raw_states(tokens[:, 1], self.clip_skip)
        return TextStates(torch.cat([narrow, wide], dim=-1), pooled)

    def denoise(self, noisy: Tensor, timesteps: Tensor, texts: TextStates, geometry: Tensor | None) -> Tensor:
        """As `Family.denoise`; without `geometry` or a pooled state there is nothing to condition on."""
        if geometry is None or texts.pooled is None:
            raise ValueError("SDXL needs the geometry of every picture and the pooled state of every caption")
        added = {"text_embeds": texts.pooled, "time_ids": geometry}
        predicted: Tensor = self.unet(
            noisy, timesteps, encoder_hidden_states=texts.states, added_cond_kwargs=added, return_dict=False
        )[0]
        return predicted
