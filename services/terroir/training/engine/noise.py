"""The base's noise schedule, what its denoiser predicts, and how losses are weighted.

Prediction type, betas and zero terminal SNR come from the base's scheduler_config.json (Lin et al., arXiv 2305.08891).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from terroir.training.config import PredictionType
from terroir.training.errors import BaseUnreadable


class NoiseSchedule:
    """Signal and noise shares of every timestep."""

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str) -> None:
        """`alphas_cumprod` `[timesteps]`, from nearly 1 down; its last is 0 with zero terminal SNR."""
        if prediction_type not in ("epsilon", "v_prediction"):
            raise BaseUnreadable(f"the base predicts {prediction_type!r}; supported are epsilon and v_prediction")
        self._v = prediction_type == "v_prediction"
        if not self._v and float(alphas_cumprod[-1]) == 0.0:
            raise BaseUnreadable(
                "the base predicts epsilon with zero terminal SNR, where its last step has nothing to learn "
                "(set rescale_betas_zero_snr false in its scheduler_config.json, or prediction_type to v_prediction)"
            )
        self.timesteps = len(alphas_cumprod)
        self._alphas_cumprod = alphas_cumprod
        self._signal = alphas_cumprod.sqrt()
        self._noise = (1 - alphas_cumprod).sqrt()

    @property
    def prediction_type(self) -> str:
        """`epsilon` or `v_prediction`."""
        return "v_prediction" if self._v else "epsilon"

    @classmethod
    def load(
        cls, base_dir: Path, device: str = "cpu", prediction_type: PredictionType = PredictionType.BASE
    ) -> NoiseSchedule:
        """Read a diffusers folder, whose prediction type another one overrules; raises BaseUnreadable."""
        path = base_dir / "scheduler" / "scheduler_config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BaseUnreadable(
                f"{path} cannot be read ({error}); point base_sources at a diffusers folder"
            ) from error
        # Every scheduler of diffusers shares these keys; DDIM keeps a zero terminal SNR exactly zero.
        scheduler = DDIMScheduler.from_config(config)
        says = scheduler.config.prediction_type if prediction_type is PredictionType.BASE else prediction_type.value
        return cls(scheduler.alphas_cumprod.float().to(device), says)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents `[batch, channels, height, width]` at `timesteps` `[batch]`."""
        signal, share = self._at(timesteps)
        return signal * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict, shaped as `latents`."""
        if not self._v:
            return noise
        signal, share = self._at(timesteps)
        return signal * noise - share * latents

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Loss weights `[batch]` of min-SNR-gamma (Hang et al., arXiv 2303.09556); finite at zero terminal SNR.

        For epsilon min(SNR, gamma) / SNR, for v min(SNR, gamma) / (SNR + 1), both written so that nothing is divided
        by an SNR of 0: as shares of signal power a and noise power 1 - a.
        """
        signal = self._alphas_cumprod[timesteps]
        noise = 1 - signal
        clipped = torch.minimum(signal, gamma * noise)  # min(SNR, gamma) * noise power
        return clipped if self._v else clipped / signal

    def _at(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        return self._signal[timesteps].view(-1, 1, 1, 1), self._noise[timesteps].view(-1, 1, 1, 1)
