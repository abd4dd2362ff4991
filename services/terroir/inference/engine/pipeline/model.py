"""The loaded pipeline: the pieces of diffusers' own `__call__` that a step-wise scheduler needs, one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from terroir.common.base_digest import base_digest, component_digests
from terroir.inference.engine.messages import DrawJob, Raster
from terroir.inference.engine.pipeline.conditioning import Conditioning
from terroir.inference.engine.pipeline.prompts import Prompts
from terroir.inference.engine.pipeline.samplers import build_sampler
from terroir.inference.engine.pipeline.start import Beginning, noise_of, remaining_timesteps, slerp
from terroir.lora.key_table import KeyTable, key_table_of

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]

_TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2")


class Model:
    """A Stable Diffusion 1.x or SDXL pipeline. The device thread owns it; its VAE belongs to the VAE worker."""

    def __init__(self, base_model: str, *, device: Device = "auto", dtype: Precision = "auto") -> None:
        """Load a diffusers folder, or a hub name; raises what diffusers raises if it can't."""
        # Both libraries log prompts when they cut them; we report a cut to the caller instead.
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        self.folder = _folder(base_model)
        self.digest = base_digest(component_digests(self.folder))
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._dtype = _precision(dtype, self.device)
        sdxl = _pipeline_class_name(self.folder).startswith("StableDiffusionXL")
        self.family = "sdxl" if sdxl else "sd15"
        self._pipe = _load(self.folder, self._dtype, sdxl=sdxl)
        self._place()
        self.unet: nn.Module = self._pipe.unet.requires_grad_(False).eval()
        self.text_encoders: dict[str, nn.Module] = {
            name: encoder.requires_grad_(False).eval()
            for name in _TEXT_ENCODERS
            if (encoder := getattr(self._pipe, name, None)) is not None
        }
        self._pipe.vae.requires_grad_(False).eval()
        self._scheduler_config = self._pipe.scheduler.config
        self._prompts = Prompts(self._pipe, sdxl=sdxl)
        self._denoise: Callable[..., Any] = self.unet

    @property
    def dtype(self) -> str:
        """Precision of the denoiser, as torch names it."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def native_resolution(self) -> int:
        """Side of the square pictures that it was trained on, in pixels."""
        return int(self._pipe.unet.config.sample_size * self._pipe.vae_scale_factor)

    def key_table(self) -> KeyTable:
        """Layers that an adapter may change, with their weights' shapes."""
        return key_table_of(_shapes(self.unet), *(_shapes(encoder) for encoder in self.text_encoders.values()))

    def layers(self) -> Mapping[str, nn.Module]:
        """The modules behind the key table."""
        return {layer: self._module(layer) for layer in self.key_table()}

    def prompt_is_cut(self, text: str) -> bool:
        """Whether the text has more tokens than the text encoder reads."""
        return self._prompts.is_cut(text)

    def condition(
        self, prompt: str, negative_prompt: str | None, *, count: int, width: int, height: int, wearing: object
    ) -> Conditioning:
        """Rows of `count` pictures: without the prompt first, unless `negative_prompt` is None, then with it.

        `wearing` identifies what the text encoders wear: equal texts under equal stacks are encoded once.
        """
        return self._prompts.condition(
            prompt, negative_prompt, count=count, width=width, height=height, wearing=wearing
        )

    def sampler(self, name: str, steps: int) -> Any:
        """A diffusers scheduler of one request's own, its timesteps set."""
        scheduler = build_sampler(name, self._scheduler_config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def start(
        self, scheduler: Any, job: DrawJob, generators: Sequence[torch.Generator], encoded: Tensor | None
    ) -> Beginning:
        """Where a job begins, its noise drawn from the generators.

        `encoded` are the latents of the picture that it starts from (img2img).
        """
        factor = self._pipe.vae_scale_factor
        shape = (self._pipe.unet.config.in_channels, job.height // factor, job.width // factor)
        noise = noise_of(shape, generators, self._dtype)
        if job.start.variation_of is not None and job.start.variation_strength < 1:
            # Ancestral samplers draw noise at each step too: a variation shares it, or it would be another picture.
            generators = [torch.Generator("cpu").manual_seed(job.start.variation_of) for _ in generators]
            noise = slerp(noise_of(shape, generators, self._dtype), noise, job.start.variation_strength)
        noise = noise.to(self.device)
        if encoded is not None:
            timesteps = remaining_timesteps(scheduler, job.steps, job.start.strength)
            latents = scheduler.add_noise(encoded, noise, timesteps[:1].repeat(len(noise)))
            return Beginning(latents, timesteps, generators)
        return Beginning(noise * scheduler.init_noise_sigma, scheduler.timesteps, generators)

    def step_options(self, scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
        """What diffusers passes to this scheduler's `step`."""
        self._pipe.scheduler = scheduler
        options: dict[str, Any] = self._pipe.prepare_extra_step_kwargs(list(generators), 0.0)
        return options

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning, padding: int = 0) -> Tensor:
        """One denoiser call: latents `[rows, …]`, timesteps `[rows]`; the answer `[rows, …]`.

        `padding` rows are added for the call alone.
        """
        rows = len(latents)
        if padding:
            latents, timesteps = _padded(latents, padding), _padded(timesteps, padding)
            conditioning = conditioning.padded(padding)
        prediction: Tensor = self._denoise(latents, timesteps, **conditioning.arguments(), return_dict=False)[0]
        return prediction[:rows]

    def compile(self, **options: Any) -> None:
        """Compile the denoiser (torch.compile), anew for each row count and shape; those first calls take minutes."""
        self._denoise = torch.compile(self.unet, dynamic=False, **options)

    def decode(self, latents: Tensor) -> Sequence[Raster | None]:
        """Pictures of latents `[pictures, …]`, rounded as diffusers rounds; None for one that is not finite."""
        vae = self._pipe.vae
        latents = latents.to(vae.dtype)  # first, as diffusers does where the VAE is more precise than the denoiser
        scale, mean = self._latent_statistics(latents)
        decoded = vae.decode(latents * scale + mean, return_dict=False)[0]
        finite = torch.isfinite(decoded).flatten(1).all(dim=1).tolist()
        arrays = self._pipe.image_processor.postprocess(decoded.nan_to_num(), output_type="np")
        pixels = (arrays * 255).round().astype(np.uint8)
        return [
            Raster(picture.shape[1], picture.shape[0], picture.tobytes()) if whole else None
            for picture, whole in zip(pixels, finite, strict=True)
        ]

    def encode_picture(self, raster: Raster, generators: Sequence[torch.Generator]) -> Tensor:
        """Latents `[pictures, …]` of a picture whose size is a multiple of 8, one draw a generator."""
        vae = self._pipe.vae
        picture = Image.frombytes("RGB", (raster.width, raster.height), raster.data)
        pixels = self._pipe.image_processor.preprocess(picture).to(self.device, vae.dtype)
        distribution = vae.encode(pixels).latent_dist
        latents = torch.cat([distribution.sample(generator) for generator in generators]).to(self._dtype)
        scale, mean = self._latent_statistics(latents)
        return (latents - mean) / scale

    def _latent_statistics(self, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """What the VAE's latents are scaled and moved by, against those that the denoiser knows."""
        config = self._pipe.vae.config
        scale, mean = 1 / config.scaling_factor, 0.0
        if config.latents_mean is None or config.latents_std is None:
            return scale, mean
        std = torch.tensor(config.latents_std, device=latents.device, dtype=latents.dtype)
        moved = torch.tensor(config.latents_mean, device=latents.device, dtype=latents.dtype)
        return std.view(1, -1, 1, 1) * scale, moved.view(1, -1, 1, 1)

    def _place(self) -> None:
        self._pipe.to(self.device)
        if self.family == "sdxl" and self._dtype == torch.float16 and self._pipe.vae.config.force_upcast:
            self._pipe.vae.to(torch.float32)  # SDXL's overflows in half precision; diffusers decodes so too
        # Convolutions are faster so on both: 7 to 12 % of a tick, 15 % of a decode on 2 cores of the tiny base.
        self._pipe.unet.to(memory_format=torch.channels_last)
        self._pipe.vae.to(memory_format=torch.channels_last)

    def _module(self, layer: str) -> nn.Module:
        component, path = layer.split(".", 1)
        root = self.unet if component == "unet" else self.text_encoders[component]
        try:
            return root.get_submodule(path)
        except AttributeError:
            # transformers 5 dropped this level from CLIPTextModel; adapter files and the key table carry it.
            return root.get_submodule(path.removeprefix("text_model."))


def _load(folder: Path, dtype: torch.dtype, *, sdxl: bool) -> Any:
    """Each class is imported only where it is needed: an import takes a second of the start."""
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
    pipe: Any
    if sdxl:
        from diffusers import StableDiffusionXLPipeline

        pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False, **options)
    else:
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, requires_safety_checker=False, **options
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _pipeline_class_name(folder: Path) -> str:
    return str(json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"])


def _precision(wanted: Precision, device: str) -> torch.dtype:
    name = ("float16" if device == "cuda" else "float32") if wanted == "auto" else wanted
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def _padded(rows: Tensor, padding: int) -> Tensor:
    return torch.cat([rows, rows[-1:].expand(padding, *rows.shape[1:])])


def _folder(base_model: str) -> Path:
    path = Path(base_model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute():
        raise FileNotFoundError(f"base model folder {path} does not exist")
    from diffusers import DiffusionPipeline

    return Path(DiffusionPipeline.download(base_model))


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
