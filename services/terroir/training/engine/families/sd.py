"""Stable Diffusion 1.x: one CLIP text encoder, whose last states are all that the denoiser is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from terroir.training.engine.families.clip import ClipText, stacked
from terroir.training.engine.families.interface import TextStates
from terroir.training.engine.noise import NoiseSchedule


@dataclass(frozen=True)
class StableDiffusion:
    """A base that diffusers loads as StableDiffusionPipeline."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: ClipText
    schedule: NoiseSchedule
    clip_skip: int = 1
    name: str = "sd15"

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """Its only one."""
        return {"text_encoder": self.text.encoder}

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """As `Family.tokenize`, with one encoder."""
        return stacked([self.text], captions)

    def encode_texts(self, tokens: Tensor) -> TextStates:
        """Normed states of the last layer that `clip_skip` leaves."""
        return TextStates(self.text.last_states(tokens[:, 0], self.clip_skip))

    def denoise(self, noisy: Tensor, timesteps: Tensor, texts: TextStates, geometry: Tensor | None) -> Tensor:
        """As `Family.denoise`."""
        del geometry  # of SDXL
        predicted: Tensor = self.unet(noisy, timesteps, texts.states, return_dict=False)[0]
        return predicted
