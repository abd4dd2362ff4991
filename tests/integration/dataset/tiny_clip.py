"""A CLIP folder with random weights, of the classes that the tagger loads."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from terroir.tiny.tokenizer import build_tokenizer

_SIDE = 64


def build_clip_folder(folder: Path, seed: int = 0) -> Path:
    """Write model, tokenizer and image processor."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 32, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": _SIDE, "patch_size": 16,
    }  # fmt: skip
    CLIPModel(CLIPConfig(projection_dim=16, text_config=text, vision_config=vision)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    crop = {"height": _SIDE, "width": _SIDE}
    mean = [0.5, 0.5, 0.5]
    CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size=crop, image_mean=mean, image_std=mean).save_pretrained(
        folder
    )
    return folder
