"""Train the tiny denoiser and its text encoder on drawn scenes and their captions, once the autoencoder is done.

Latents are drawn and encoded once and kept on disk; captions are phrased anew at every use. The denoiser predicts v
with zero terminal SNR (Lin et al., arXiv 2305.08891). A tenth of the captions is empty (classifier-free guidance), and
some begin with a meaningless word, so that an adapter's trigger word does not disturb the base.

A run starts from nothing, or with `--start` from the weights and the autoencoder of a finished base.

    python -m terroir.tiny.training.unet --steps 5400 --out build/tiny
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from terroir.tiny.architecture import build_scheduler, build_text_encoder, build_unet, save_pipeline
from terroir.tiny.tokenizer import build_tokenizer
from terroir.tiny.training.precision import probe_autocast
from terroir.tiny.training.schedule import (
    average_gradients,
    join_group,
    learning_rate,
    save_atomically,
    start_group,
)
from terroir.tiny.training.vae import to_tensor
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import SUBJECTS, Scene, all_scenes, caption

_NOISE_SHIFT: Final = 2.5
_SIZES: Final = {(64, 64): 18_000, (128, 72): 1_500, (72, 96): 1_500}
"""Pictures (width, height) each process draws."""
_OFTEN: Final = 3.0
"""How much more often a picture of a subject named by `--often` is shown."""
_SIZE_SHARE: Final = {(64, 64): 0.86, (128, 72): 0.07, (72, 96): 0.07}


class Latents:
    """One process's own pictures, encoded: latents `[count, 12, height / 4, width / 4]` and their scenes, by size."""

    def __init__(
        self, folder: Path, rank: int, vae: AutoencoderKL, precision: torch.autocast, often: Sequence[str] = ()
    ) -> None:
        self._scenes = all_scenes(held_out=False)
        self._vae, self._precision = vae, precision
        self._weights = np.array([_OFTEN if scene.subject in often else 1.0 for scene in self._scenes])
        self._by_size: dict[tuple[int, int], tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]] = {}
        for size, count in _SIZES.items():
            path = folder / f"latents-{rank}-{size[0]}x{size[1]}.npz"
            if not path.exists():
                self._encode(path, size, count, np.random.default_rng((23, rank, *size)))
            with np.load(path) as stored:
                self._by_size[size] = (stored["latents"], stored["scenes"])

    def _encode(self, path: Path, size: tuple[int, int], count: int, rng: np.random.Generator) -> None:
        encoded, chosen = [], rng.integers(len(self._scenes), size=count)
        for start in range(0, count, 100):
            pictures = [
                render(self._scenes[index], rng, width=size[0], height=size[1]) for index in chosen[start : start + 100]
            ]
            with torch.no_grad(), self._precision:
                latents = self._vae.encode(to_tensor(pictures)).latent_dist.mean
            encoded.append(latents.float().numpy().astype(np.float16))
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, latents=np.concatenate(encoded), scenes=chosen)
        partial.replace(path)
        print(f"encoded {path.name}", flush=True)

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, list[Scene]]:
        """`count` latents of one size, with their scenes; half as many of the larger sizes."""
        sizes = list(_SIZE_SHARE)
        size = sizes[int(rng.choice(len(sizes), p=list(_SIZE_SHARE.values())))]
        latents, scenes = self._by_size[size]
        weights = self._weights[scenes]
        share = 1 if size == (64, 64) else 2
        picked = rng.choice(len(scenes), size=count // share, p=weights / weights.sum())
        return torch.from_numpy(latents[picked].astype(np.float32)), [self._scenes[scenes[i]] for i in picked]


def phrase(scene: Scene, rng: np.random.Generator) -> str:
    """A training caption: usually one of the phrasings, sometimes empty, sometimes with a meaningless first word."""
    if rng.random() < 0.1:
        return ""
    text = caption(scene, rng)
    if rng.random() < 0.12:
        word = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=int(rng.integers(2, 7))))
        text = f"{word} style, {text}" if rng.random() < 0.5 else f"{word}, {text}"
    return text


def _timesteps(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Stratified timesteps, shifted towards noise (Esser et al., arXiv 2403.03206, eq. 23).

    Twelve channels show a subject through more noise than four do, so what it will be is decided in few, noisy steps.
    """
    uniform = (np.arange(count) + rng.random(count)) / count
    return (_NOISE_SHIFT * uniform / (1 + (_NOISE_SHIFT - 1) * uniform) * 1000).astype(np.int64)


def autoencoder(folder: Path, start: Path | None) -> AutoencoderKL:
    """The autoencoder that was trained in `folder`, else the one of the base that the run starts from."""
    own = folder / "vae"
    place = own if own.exists() or not start else start / "vae"
    return AutoencoderKL.from_pretrained(place, torch_dtype=torch.float32)


def first_models(start: Path | None) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Denoiser and text encoder with random weights, or in single precision those of the base `start`."""
    unet, text_encoder = build_unet(), build_text_encoder(build_tokenizer())
    if start:
        stored = UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)
        unet.load_state_dict(stored.state_dict())
        text_encoder.load_state_dict(CLIPTextModel.from_pretrained(start / "text_encoder").state_dict())
    return unet, text_encoder


def _train(rank: int, options: argparse.Namespace) -> None:
    join_group(rank, options.processes, options.port)
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    unet, text_encoder = first_models(options.start)
    averages = [copy.deepcopy(unet).requires_grad_(False), copy.deepcopy(text_encoder).requires_grad_(False)]
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.99), weight_decay=1e-3)
    alphas = build_scheduler().alphas_cumprod
    precision = probe_autocast()
    data = Latents(options.out, rank, autoencoder(options.out, options.start), precision, options.often)
    dist.barrier()
    checkpoint = options.out / "unet.ckpt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for module, key in (
            (unet, "unet"),
            (text_encoder, "text"),
            (averages[0], "unet_average"),
            (averages[1], "text_average"),
        ):
            module.load_state_dict(state[key])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    losses: list[float] = []
    for step in range(first, options.steps):
        rng = np.random.default_rng((29, step, rank))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(options.peak, step, step / options.steps, options.flat)
        latents, scenes = data.batch(rng, options.batch)
        tokens = tokenizer(
            [phrase(scene, rng) for scene in scenes], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        count = len(scenes)
        timesteps = torch.from_numpy(_timesteps(count, rng))
        noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        signal = alphas[timesteps].sqrt()[:, None, None, None]
        spread = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
        with precision:
            embedding = text_encoder(tokens).last_hidden_state
            prediction = unet(signal * latents + spread * noise, timesteps, encoder_hidden_states=embedding).sample
        loss = (prediction.float() - (signal * noise - spread * latents)).square().mean()
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        done = step + 1
        losses.append(loss.item())
        if rank == 0:
            with torch.no_grad():
                decay = min(0.999, done / (done + 100))
                for average, module in zip(averages, (unet, text_encoder), strict=True):
                    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
            if done % 100 == 0 or done == options.steps:
                save_atomically(
                    {
                        "unet": unet.state_dict(), "text": text_encoder.state_dict(),
                        "unet_average": averages[0].state_dict(), "text_average": averages[1].state_dict(),
                        "optimiser": optimiser.state_dict(), "step": done,
                    },
                    checkpoint,
                )  # fmt: skip
                print(f"step {done} of {options.steps} loss {np.mean(losses[-100:]):.4f}", flush=True)
    dist.barrier()


def export(options: argparse.Namespace) -> int:
    """Write the averaged weights of the newest checkpoint as a diffusers folder; returns its step."""
    state = torch.load(options.out / "unet.ckpt", weights_only=True)
    tokenizer = build_tokenizer()
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    unet.load_state_dict(state["unet_average"])
    text_encoder.load_state_dict(state["text_average"])
    vae = autoencoder(options.out, options.start)
    save_pipeline(options.export, vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer)
    return int(state["step"])


def main() -> None:
    """Command line of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5400, help="optimiser steps over all restarts")
    parser.add_argument("--batch", type=int, default=16, help="pictures a step and process")
    parser.add_argument("--start", type=Path, help="diffusers folder whose weights the run begins with")
    parser.add_argument(
        "--out", type=Path, default=Path("build/tiny"), help="folder with the autoencoder and checkpoints"
    )
    parser.add_argument("--processes", type=int, default=2, help="one-thread processes")
    parser.add_argument("--port", type=int, default=29612, help="loopback port on which they meet")
    parser.add_argument("--peak", type=float, default=8e-4, help="peak learning rate")
    parser.add_argument(
        "--often", nargs="*", default=(), choices=SUBJECTS, help="subjects to show three times as often"
    )
    parser.add_argument("--flat", type=float, default=0.55, help="share of the run before the rate falls")
    parser.add_argument("--export", type=Path, help="only write the newest averaged weights as a diffusers folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.export:
        print(f"exported step {export(options)}")
        return
    start_group(_train, options)


if __name__ == "__main__":
    main()
