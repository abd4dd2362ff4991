"""Train the tiny autoencoder: base pictures and many random looks, crops first, whole pictures last.

It comes before the denoiser and decodes every style that an adapter will ever teach, so half of what it sees are looks
that the base model never draws. Latents come out standardised: the statistics are folded into the 1×1 convolutions.

    python -m terroir.tiny.training.vae --steps 5880 --out build/tiny
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from torch import Tensor

from terroir.tiny.architecture import LATENT_CHANNELS, build_vae
from terroir.tiny.training.precision import probe_autocast
from terroir.tiny.training.schedule import (
    average_gradients,
    join_group,
    learning_rate,
    save_atomically,
    start_group,
)
from terroir.tiny.world.look import BASE, Look, random_look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import all_scenes
from terroir.tiny.world.styles import JIANGNAN_INK, NEON, SICHUAN_HOTPOT

_CROP = 32
_BATCH = 16


def to_tensor(pictures: list[Any]) -> Tensor:
    """RGB pictures of one size to `[batch, 3, height, width]` in -1 … 1."""
    stacked = np.stack([np.asarray(p, dtype=np.float32) for p in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2) / 127.5 - 1.0


def draw(count: int, rng: np.random.Generator, look: Look | None, *, held_out: bool) -> Tensor:
    """`count` pictures 64 × 64; a look of None draws a new random look for each."""
    scenes = all_scenes(held_out=held_out)
    pictures = [
        render(scenes[int(rng.integers(len(scenes)))], rng, look if look is not None else random_look(rng))
        for _ in range(count)
    ]
    return to_tensor(pictures)


def _batch(rng: np.random.Generator, *, whole: bool) -> Tensor:
    pictures = 8
    base = 3
    full = torch.cat([draw(base, rng, BASE, held_out=False), draw(pictures - base, rng, None, held_out=False)])
    if whole:
        return full
    crops = []
    for picture in full:
        for _ in range(_BATCH // pictures):
            x, y = rng.integers(0, 64 - _CROP + 1, 2)
            crops.append(picture[:, y : y + _CROP, x : x + _CROP])
    return torch.stack(crops)


def _loss(vae: AutoencoderKL, x: Tensor, precision: torch.autocast) -> Tensor:
    with precision:
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
    y = y.float()
    edges = (y.diff(dim=2) - x.diff(dim=2)).abs().mean() + (y.diff(dim=3) - x.diff(dim=3)).abs().mean()
    kl = posterior.kl().mean() / x[0].numel()
    return (y - x).abs().mean() + (y - x).square().mean() + 0.5 * edges + 2e-5 * kl


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio of reconstructions, in dB, per picture, from the posterior mean."""
    y = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    error = ((y - pictures) / 2).square().flatten(1).mean(1)
    return float((-10 * torch.log10(error.clamp_min(1e-10))).mean())


def judge(vae: AutoencoderKL) -> dict[str, float]:
    """PSNR in dB on pictures that training never drew: base, random looks, and the example styles."""
    looks: dict[str, Look | None] = {
        "base": BASE, "random looks": None, "jiangnan-ink": JIANGNAN_INK, "sichuan-hotpot": SICHUAN_HOTPOT,
        "neon": NEON,
    }  # fmt: skip
    figures = {}
    for name, look in looks.items():
        pictures = draw(64, np.random.default_rng(987_654), look, held_out=True)
        figures[name] = round(psnr(vae, pictures), 2)
    return figures


@torch.no_grad()
def standardise(vae: AutoencoderKL) -> None:
    """Fold the latents' mean and deviation per channel into the 1×1 convolutions, so that scaling_factor is 1."""
    pictures = draw(512, np.random.default_rng(5), BASE, held_out=False)
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in pictures.split(64)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    half = LATENT_CHANNELS
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += (post.weight * mean[None, :, None, None]).sum((1, 2, 3))
    post.weight *= deviation[None, :, None, None]
    quant.weight[:half] /= deviation[:, None, None, None]
    quant.bias[:half] = (quant.bias[:half] - mean) / deviation
    quant.bias[half:] -= 2 * deviation.log()


def _train(rank: int, options: argparse.Namespace) -> None:
    join_group(rank, options.processes, options.port)
    torch.manual_seed(0)
    vae = build_vae()
    average = copy.deepcopy(vae).requires_grad_(False)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=1e-4)
    checkpoint = options.out / "vae.ckpt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["vae"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    precision = probe_autocast()
    parameters = list(vae.parameters())
    for step in range(first, options.steps):
        share = step / options.steps
        rng = np.random.default_rng((11, step, rank))
        torch.manual_seed(step * 1009 + rank)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(2e-3, step, share, 0.4)
        loss = _loss(vae, _batch(rng, whole=share > 0.65), precision)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        done = step + 1
        with torch.no_grad():
            for kept, current in zip(average.parameters(), vae.parameters(), strict=True):
                kept.lerp_(current, 1 - min(0.999, done / (done + 50)))
        if rank == 0 and done % 250 == 0:
            save_atomically(
                {
                    "vae": vae.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict(),
                    "step": done,
                },
                checkpoint,
            )  # fmt: skip
            figures = judge(average) if done % 1000 == 0 else {}
            print(f"step {done} share {share:.3f} loss {loss.item():.4f} {figures}", flush=True)
    if rank == 0:
        standardise(average)
        figures = judge(average)
        average.save_pretrained(options.out / "vae")
        (options.out / "vae" / "figures.json").write_text(
            json.dumps({"psnr_db": figures, "steps": options.steps}, indent=2)
        )
        print(figures, flush=True)
    dist.barrier()


def main() -> None:
    """Command line of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5880, help="optimiser steps of 16 pictures a process")
    parser.add_argument("--out", type=Path, default=Path("build/tiny"), help="folder of checkpoint and result")
    parser.add_argument("--processes", type=int, default=2, help="one-thread processes")
    parser.add_argument("--port", type=int, default=29611, help="loopback port on which they meet")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start_group(_train, options)


if __name__ == "__main__":
    main()
