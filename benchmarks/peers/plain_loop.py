"""A LoRA training loop as diffusers' `examples/text_to_image/train_text_to_image_lora.py` writes it.

In every step pictures are decoded, brought to size and pass the VAE, and captions are tokenised and pass the text
encoder; encoders and frozen weights are held in the precision of the passes. Left out: accelerate, whose autocast is
torch's own here, and the datasets library. Two differences, so that both sides compute the same: gradients are clipped
(the example hands an exhausted iterator to the clipping, which then does nothing), and with bf16 the adapter's weights
stay in fp32, as the example does with fp16 only.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Pictures

_HALVES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class LoopResult:
    """What one run took and reached."""

    step_seconds: list[float]
    losses: list[float]


class PlainLoop:
    """The base's components and an adapter on the denoiser's attention."""

    def __init__(self, base: Path, config: TrainConfig, device: str = "cpu") -> None:
        self._config = config
        self._device = device
        self._half = _HALVES.get(config.mixed_precision.value)
        weights = self._half or torch.float32
        self._scheduler: Any = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
        kinds = ((CLIPTextModel, "text_encoder"), (AutoencoderKL, "vae"), (UNet2DConditionModel, "unet"))
        self._text_encoder, self._vae, self._unet = (
            _frozen(kind, base / folder, weights).to(device) for kind, folder in kinds
        )
        self._unet.add_adapter(
            LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.alpha,
                init_lora_weights="gaussian",
                target_modules=["to_k", "to_q", "to_v", "to_out.0"],
            )
        )
        cast_training_params(self._unet, dtype=torch.float32)
        if config.gradient_checkpointing:
            self._unet.enable_gradient_checkpointing()
        self._trained = [weight for weight in self._unet.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        self._scaler = torch.amp.GradScaler(device, enabled=self._half is torch.float16)
        self._unet.train()

    def update(self, parts: list[tuple[Tensor, Tensor]]) -> float:
        """One update on as many passes as are accumulated, each of it as in `_loss`; their mean loss."""
        total = 0.0
        for pixels, ids in parts:
            loss = self._loss(pixels, ids) / len(parts)
            self._scaler.scale(loss).backward()
            total += loss.item()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._trained, self._config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        return total

    def _loss(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """On pixels `[batch, 3, height, width]` in -1 … 1 and token ids `[batch, tokens]`."""
        pixels = pixels.to(self._device, dtype=self._vae.dtype)
        latents = self._vae.encode(pixels).latent_dist.sample() * self._vae.config.scaling_factor
        noise = torch.randn_like(latents)
        steps = self._scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, steps, (latents.shape[0],), device=self._device).long()
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        states = self._text_encoder(ids.to(self._device), return_dict=False)[0]
        velocity = self._scheduler.config.prediction_type == "v_prediction"
        target = self._scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
        with torch.autocast(torch.device(self._device).type, self._half, enabled=self._half is not None):
            predicted = self._unet(noisy, timesteps, states, return_dict=False)[0]
        return nn.functional.mse_loss(predicted.float(), target.float(), reduction="mean")

    def batch(self, data: Pictures, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Pixels and ids as in `_loss`."""
        tokens = self._tokenizer(
            [data[index].caption for index in chosen],
            max_length=self._tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        pixels = torch.stack([_pixels(data[index].data, self._config.resolution) for index in chosen])
        return pixels, tokens.input_ids


def run(base: Path, config: TrainConfig, data: Pictures, threads: int, device: str = "cpu") -> LoopResult:
    """Train for the configuration's steps."""
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    loop = PlainLoop(base, config, device)
    batches = _batches(len(data), config)
    seconds, losses = [], []
    for _ in range(config.total_steps(len(data))):
        since = time.perf_counter()
        chosen = [next(batches) for _ in range(config.gradient_accumulation_steps)]
        losses.append(loop.update([loop.batch(data, part) for part in chosen]))
        seconds.append(time.perf_counter() - since)
    return LoopResult(seconds, losses)


def _batches(pictures: int, config: TrainConfig) -> Iterator[list[int]]:
    """Whole batches alone, so that every step has as many samples as the other side's."""
    order, left = np.random.default_rng(config.seed), list[int]()
    while True:
        while len(left) < config.batch_size:
            left += order.permutation(pictures).tolist()
        yield left[: config.batch_size]
        left = left[config.batch_size :]


def _pixels(data: bytes, side: int) -> Tensor:
    """The shorter side to `side`, a random square of it, `[3, side, side]` in -1 … 1."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / min(image.size)
    width, height = (max(side, math.floor(length * scale)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (int(torch.randint(0, length - side + 1, ())) for length in (width, height))
    array = np.asarray(image.crop((left, top, left + side, top + side)))
    return torch.from_numpy(array.copy()).permute(2, 0, 1).contiguous().float() / 127.5 - 1


def _frozen(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    return kind.from_pretrained(folder, torch_dtype=dtype).requires_grad_(False)
