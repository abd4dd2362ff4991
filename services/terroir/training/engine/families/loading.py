"""Loads a base from its diffusers folder as the family that it belongs to, or says why it cannot be trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from terroir.training.config import TrainConfig
from terroir.training.engine.families.clip import ClipText
from terroir.training.engine.families.interface import Family
from terroir.training.engine.families.sd import StableDiffusion
from terroir.training.engine.families.sdxl import PENULTIMATE, StableDiffusionXL
from terroir.training.engine.noise import NoiseSchedule
from terroir.training.engine.precision import Precision
from terroir.training.errors import BaseUnreadable

FAMILIES: Final = {"StableDiffusionPipeline": "sd15", "StableDiffusionXLPipeline": "sdxl"}
"""Families by the pipeline that model_index.json names."""
_COMPONENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "sd15": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
}
_OTHERS: Final = {"StableDiffusion3": "SD3", "Flux": "FLUX", "PixArt": "PixArt", "Kandinsky": "Kandinsky"}
_OPEN_CLIP_H_WIDTH: Final = 1024


def load_family(folder: Path, config: TrainConfig, device: str) -> Family:
    """Read every component: encoders onto the device, the denoiser to the host until `make_room` fetches it.

    The denoiser, and text encoders that train, are held in the precision of the passes, all else in fp32. Raises
    BaseUnreadable naming the component or the family that is wrong. Nothing is fetched from a hub.
    """
    name = family_of(folder)
    schedule = NoiseSchedule.load(folder, device, config.prediction_type)
    half = Precision.frozen(config.mixed_precision)
    unet = _component(UNet2DConditionModel, folder / "unet", torch_dtype=half).eval().requires_grad_(False)
    vae = _component(AutoencoderKL, folder / "vae", torch_dtype=torch.float32).eval().requires_grad_(False).to(device)
    texts = half if config.text_encoder_lr else torch.float32
    first = _clip(folder, "", CLIPTextModel, texts, device)
    if name == "sd15":
        return StableDiffusion(unet, vae, first, schedule, config.clip_skip or 1)
    second = _clip(folder, "_2", CLIPTextModelWithProjection, texts, device)
    return StableDiffusionXL(unet, vae, first, second, schedule, config.clip_skip or PENULTIMATE)


def family_of(folder: Path) -> str:
    """`sd15` or `sdxl`; raises BaseUnreadable for another family, or naming every component that is missing."""
    pipeline = str(_json(folder / "model_index.json").get("_class_name"))
    if pipeline not in FAMILIES:
        other = next((other for start, other in _OTHERS.items() if pipeline.startswith(start)), pipeline)
        raise _unsupported(folder, other)
    name = FAMILIES[pipeline]
    missing = [component for component in _COMPONENTS[name] if not (folder / component).is_dir()]
    if missing:
        raise BaseUnreadable(
            f"base {folder} lacks {', '.join(missing)}, which a {pipeline} has; copy the whole diffusers folder",
            reason="BASE_INCOMPLETE",
        )
    width = _json(folder / "unet" / "config.json").get("cross_attention_dim")
    if name == "sd15" and width == _OPEN_CLIP_H_WIDTH:
        raise _unsupported(folder, "Stable Diffusion 2.x")
    return name


def _unsupported(folder: Path, family: str) -> BaseUnreadable:
    return BaseUnreadable(
        f"base {folder} is of the family {family}; adapters are trained on Stable Diffusion 1.x and SDXL "
        "(choose such a base_model)",
        reason="BASE_FAMILY_UNSUPPORTED",
        field="base_model",
    )


def _clip(folder: Path, suffix: str, kind: Any, dtype: torch.dtype, device: str) -> ClipText:
    encoder = _component(kind, folder / f"text_encoder{suffix}", dtype=dtype)
    return ClipText(
        tokenizer=_component(CLIPTokenizer, folder / f"tokenizer{suffix}"),
        encoder=encoder.to(device).eval().requires_grad_(False),
    )


def _component(kind: Any, folder: Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseUnreadable(f"base component {folder} cannot be read ({error}); copy it again") from error


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseUnreadable(f"{path} cannot be read ({error}); point base_sources at a diffusers folder") from error
    if not isinstance(found, dict):
        raise BaseUnreadable(f"{path} holds no JSON object; point base_sources at a diffusers folder")
    return found
