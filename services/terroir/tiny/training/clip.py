"""Train the tiny CLIP: image and text towers over drawn scenes in many looks (Radford et al., arXiv 2103.00020).

It scores how well a picture agrees with a text and how alike two pictures are. Half of the pictures carry random looks,
so that it recognises a subject in a style that it never saw; captions name the look's traits half of the time.

    python -m terroir.tiny.training.clip --steps 2500 --out build/tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from terroir.tiny import NATIVE_SIDE
from terroir.tiny.architecture import MAX_TOKENS
from terroir.tiny.tokenizer import build_tokenizer
from terroir.tiny.training.precision import probe_autocast
from terroir.tiny.training.schedule import save_atomically
from terroir.tiny.training.vae import to_tensor
from terroir.tiny.world.look import BASE, Look, describe, random_look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import Scene, all_scenes, caption

_BATCH: Final = 96
_WIDTH: Final = 128


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Four-layer vision transformer over 8-pixel patches, two-layer text tower, 96-dimensional joint space."""
    return CLIPModel(
        CLIPConfig(
            projection_dim=96,
            text_config={
                "vocab_size": len(tokenizer), "hidden_size": _WIDTH, "intermediate_size": 4 * _WIDTH,
                "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": MAX_TOKENS,
                "projection_dim": 96, "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                "hidden_size": _WIDTH, "intermediate_size": 4 * _WIDTH, "num_hidden_layers": 4,
                "num_attention_heads": 4, "image_size": NATIVE_SIDE, "patch_size": 8, "projection_dim": 96,
            },
        )
    )  # fmt: skip


def image_processor() -> CLIPImageProcessor:
    """Resize and centre-crop to 64 pixels, values to -1 … 1."""
    return CLIPImageProcessor(
        size={"shortest_edge": NATIVE_SIDE},
        crop_size={"height": NATIVE_SIDE, "width": NATIVE_SIDE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def _pairs(rng: np.random.Generator, scenes: list[Scene], count: int) -> tuple[Tensor, list[str]]:
    """Pictures with captions; scenes are distinct, so that no caption of the batch fits two pictures."""
    pictures, texts = [], []
    for index in rng.choice(len(scenes), size=count, replace=False):
        look: Look = BASE if rng.random() < 0.5 else random_look(rng)
        text = caption(scenes[index], rng)
        traits = describe(look)
        if traits and rng.random() < 0.5:
            text = f"{text}, {traits}"
        pictures.append(render(scenes[index], rng, look))
        texts.append(text)
    return to_tensor(pictures), texts


@torch.no_grad()
def judge(model: CLIPModel, tokenizer: CLIPTokenizer) -> dict[str, float]:
    """Share of held-out pictures, base and random looks, whose own full caption wins over all held-out captions."""
    scenes = all_scenes(held_out=True)
    tokens = tokenizer([caption(s) for s in scenes], padding="max_length", truncation=True, return_tensors="pt")
    figures = {}
    for name in ("base", "random looks"):
        rng = np.random.default_rng(77)
        pictures = to_tensor([render(s, rng, BASE if name == "base" else random_look(rng)) for s in scenes])
        logits = model(pixel_values=pictures, **tokens).logits_per_image
        figures[name] = round(float((logits.argmax(1) == torch.arange(len(scenes))).float().mean()), 3)
    return figures


def main() -> None:
    """Command line of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500, help="optimiser steps of 96 pairs")
    parser.add_argument("--out", type=Path, default=Path("build/tiny"), help="folder of checkpoint and result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_clip(tokenizer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=0.02)
    checkpoint = options.out / "clip.ckpt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    scenes = all_scenes(held_out=False)
    precision = probe_autocast()
    for step in range(first, options.steps):
        rng = np.random.default_rng((31, step))
        rate = 1e-3 * min(1.0, (step + 1) / 150) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / options.steps)))
        for group in optimiser.param_groups:
            group["lr"] = float(rate)
        pictures, texts = _pairs(rng, scenes, _BATCH)
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        with precision:
            output = model(pixel_values=pictures, **tokens)
        logits = output.logits_per_image.float()
        target = torch.arange(_BATCH)
        loss = torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 100 == 0:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            save_atomically(state, checkpoint)
            print(f"step {step + 1} loss {loss.item():.3f} {judge(model, tokenizer)}", flush=True)
    folder = options.out / "clip"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)


if __name__ == "__main__":
    main()
