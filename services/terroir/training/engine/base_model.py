"""The frozen base that an adapter is trained on, from a diffusers folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from terroir.training.engine.noise import NoiseSchedule
from terroir.training.errors import BaseUnreadable


@dataclass(frozen=True)
class BaseModel:
    """Components in fp32 on the device."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule

    @classmethod
    def load(cls, folder: Path, device: str) -> BaseModel:
        """Read every component; raises BaseUnreadable naming the one that is wrong. Nothing is fetched from a hub."""
        options = {"local_files_only": True, "torch_dtype": torch.float32}
        return cls(
            unet=_component(UNet2DConditionModel, folder / "unet", **options).to(device),
            vae=_component(AutoencoderKL, folder / "vae", **options).to(device).eval().requires_grad_(False),
            text_encoder=_component(CLIPTextModel, folder / "text_encoder", **options)
            .to(device)
            .eval()
            .requires_grad_(False),
            tokenizer=_component(CLIPTokenizer, folder / "tokenizer", local_files_only=True),
            schedule=NoiseSchedule.load(folder, device),
        )


def _component(kind: Any, folder: Path, **options: Any) -> Any:
    if not folder.is_dir():
        raise BaseUnreadable(f"base component {folder} does not exist (point base_sources at a diffusers folder)")
    try:
        return kind.from_pretrained(str(folder), **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseUnreadable(f"base component {folder} cannot be read ({error}); copy it again") from error
