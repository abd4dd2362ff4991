"""Writes a diffusers folder by hand: a few layers with the names and shapes that a Stable Diffusion pipeline has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

_BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
UNET_SHAPES: dict[str, tuple[int, ...]] = {
    f"{_BLOCK}.attn1.to_q.weight": (8, 8),
    f"{_BLOCK}.attn1.to_k.weight": (8, 8),
    f"{_BLOCK}.attn1.to_v.weight": (8, 8),
    f"{_BLOCK}.attn1.to_out.0.weight": (8, 8),
    f"{_BLOCK}.attn2.to_k.weight": (8, 6),
    f"{_BLOCK}.norm1.weight": (8,),
    "conv_in.weight": (8, 4, 3, 3),
}
TEXT_SHAPES: dict[str, tuple[int, ...]] = {
    "text_model.encoder.layers.0.self_attn.q_proj.weight": (6, 6),
    "text_model.encoder.layers.0.mlp.fc1.weight": (24, 6),
}


def write_base_folder(folder: Path, seed: int = 0, prediction_type: str = "v_prediction") -> Path:
    """A base folder whose weights are drawn from `seed`; returns `folder`."""
    rng = np.random.default_rng(seed)
    _config(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    _config(folder / "scheduler" / "scheduler_config.json", {"prediction_type": prediction_type})
    _config(folder / "unet" / "config.json", {"sample_size": 16})
    _config(folder / "vae" / "config.json", {"block_out_channels": [32, 64, 96]})
    _weights(folder / "unet" / "diffusion_pytorch_model.safetensors", UNET_SHAPES, rng)
    _weights(folder / "vae" / "diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (8, 4, 3, 3)}, rng)
    (folder / "text_encoder").mkdir()
    _weights(folder / "text_encoder" / "model.safetensors", TEXT_SHAPES, rng)
    return folder


def _config(path: Path, body: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body), encoding="utf-8")


def _weights(path: Path, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    save_file({key: rng.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}, path)
