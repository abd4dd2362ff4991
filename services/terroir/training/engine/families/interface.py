"""What the engine needs of a family of base models, whatever its text encoders and conditions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from terroir.training.engine.noise import NoiseSchedule


@dataclass(frozen=True)
class TextStates:
    """Captions as a denoiser takes them."""

    states: Tensor
    """`[texts, tokens, width]`: what its cross-attention reads; SDXL's two encoders side by side."""
    pooled: Tensor | None = None
    """`[texts, width]`, SDXL alone."""

    def rows(self, indices: Tensor) -> TextStates:
        """Those texts, `[len(indices), …]`."""
        return TextStates(self.states[indices], None if self.pooled is None else self.pooled[indices])


class Family(Protocol):
    """One loaded base on its device."""

    @property
    def name(self) -> str:
        """`sd15` or `sdxl`, as the registry calls them."""

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoiser, frozen."""

    @property
    def vae(self) -> AutoencoderKL:
        """The autoencoder of pictures, frozen, in fp32."""

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """By component, `text_encoder` and in SDXL `text_encoder_2`, in the order of the tokens' second axis."""

    @property
    def schedule(self) -> NoiseSchedule:
        """What noise the denoiser was taught with."""

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids `[captions, encoders, tokens]`, int64, on the CPU; longer captions are cut."""
        ...

    def encode_texts(self, tokens: Tensor) -> TextStates:
        """States of token ids shaped as `tokenize` returns them; differentiable in the text encoders' weights."""
        ...

    def denoise(self, noisy: Tensor, timesteps: Tensor, texts: TextStates, geometry: Tensor | None) -> Tensor:
        """The denoiser's output, shaped as `noisy` `[batch, channels, height, width]`.

        `geometry` `[batch, 6]` is SDXL's micro-conditioning: height and width of the original, top and left of the
        crop, height and width of the target, in pixels (Podell et al., arXiv 2307.01952); other families ignore it.
        """
        ...
