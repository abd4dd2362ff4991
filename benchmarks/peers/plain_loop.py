"""A LoRA training loop as diffusers' `examples/text_to_image/train_text_to_image_lora.py` writes it.

Pictures are decoded and pass the VAE, and captions pass the text encoder, in every step. Left out: accelerate, which
does nothing on one CPU in fp32, and the picture transforms that the configuration compared here does not use.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Pictures


@dataclass(frozen=True)
class LoopResult:
    """What one run took and reached."""

    step_seconds: list[float]
    losses: list[float]


class PlainLoop:
    """The base's components and an adapter on the denoiser's attention."""

    def __init__(self, base: Path, config: TrainConfig) -> None:
        self._config = config
        self._scheduler: Any = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
        self._text_encoder: Any = CLIPTextModel.from_pretrained(base, subfolder="text_encoder").requires_grad_(False)
        self._vae: Any = AutoencoderKL.from_pretrained(base, subfolder="vae").requires_grad_(False)
        self._unet: Any = UNet2DConditionModel.from_pretrained(base, subfolder="unet").requires_grad_(False)
        self._unet.add_adapter(
            LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.alpha,
                init_lora_weights="gaussian",
                target_modules=["to_k", "to_q", "to_v", "to_out.0"],
            )
        )
        self._weights = [weight for weight in self._unet.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=config.learning_rate, weight_decay=config.weight_decay)
        self._unet.train()

    def step(self, pixels: Tensor, ids: Tensor) -> float:
        """One update on pixels `[batch, 3, height, width]` in -1 … 1 and token ids `[batch, tokens]`; its loss."""
        latents = self._vae.encode(pixels).latent_dist.sample() * self._vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self._scheduler.config.num_train_timesteps, (latents.shape[0],)).long()
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        states = self._text_encoder(ids, return_dict=False)[0]
        velocity = self._scheduler.config.prediction_type == "v_prediction"
        target = self._scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
        predicted = self._unet(noisy, timesteps, states, return_dict=False)[0]
        loss = nn.functional.mse_loss(predicted.float(), target.float(), reduction="mean")
        loss.backward()
        nn.utils.clip_grad_norm_(self._weights, self._config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(loss.detach())

    def batch(self, data: Pictures, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Pixels and ids as in `step`."""
        side = self._config.resolution
        arrays = []
        for index in chosen:
            image = Image.open(io.BytesIO(data[index].data)).convert("RGB")
            arrays.append(np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 127.5 - 1)
        tokens = self._tokenizer(
            [data[index].caption for index in chosen],
            max_length=self._tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), tokens.input_ids


def run(base: Path, config: TrainConfig, data: Pictures, threads: int) -> LoopResult:
    """Train for the configuration's steps."""
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    loop = PlainLoop(base, config)
    order = np.random.default_rng(config.seed)
    seconds, losses = [], []
    for _ in range(config.total_steps(len(data))):
        since = time.perf_counter()
        chosen = order.permutation(len(data))[: config.batch_size].tolist()
        losses.append(loop.step(*loop.batch(data, chosen)))
        seconds.append(time.perf_counter() - since)
    return LoopResult(seconds, losses)
