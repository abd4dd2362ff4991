"""The loaded pipeline: the pieces of diffusers' own `__call__` that a step-wise scheduler needs, one at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from terroir.common.base_digest import base_digest, component_digests
from terroir.inference.engine.conditioning import Conditioning
from terroir.inference.engine.messages import DrawJob, Raster
from terroir.inference.engine.samplers import build_sampler
from terroir.lora.key_table import KeyTable, key_table_of

_KEPT_EMBEDDINGS: Final = 256


class Model:
    """A Stable Diffusion pipeline in single precision. The device thread owns it."""

    def __init__(self, base_model: str) -> None:
        """Load a diffusers folder, or a hub name; raises what diffusers raises if it can't."""
        # Both libraries log prompts when they cut them; we report a cut to the caller instead.
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        self.folder = _folder(base_model)
        self.digest = base_digest(component_digests(self.folder))
        self._pipe: Any = StableDiffusionPipeline.from_pretrained(
            self.folder,
            dtype=torch.float32,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
        self._pipe.set_progress_bar_config(disable=True)
        self.unet: nn.Module = self._pipe.unet.requires_grad_(False).eval()
        self.text_encoder: nn.Module = self._pipe.text_encoder.requires_grad_(False).eval()
        self._pipe.vae.requires_grad_(False).eval()
        self._denoise: Callable[..., Any] = self.unet
        self._scheduler_config = self._pipe.scheduler.config
        self._embeddings: OrderedDict[tuple[str, object], Tensor] = OrderedDict()

    @property
    def device(self) -> str:
        """Type of the device that it computes on."""
        return str(self._pipe.device.type)

    @property
    def native_resolution(self) -> int:
        """Side of the square pictures that it was trained on, in pixels."""
        return int(self._pipe.unet.config.sample_size * self._pipe.vae_scale_factor)

    def key_table(self) -> KeyTable:
        """Layers that an adapter may change, with their weights' shapes."""
        return key_table_of(_shapes(self.unet), _shapes(self.text_encoder))

    def layers(self) -> Mapping[str, nn.Module]:
        """The modules behind the key table."""
        return {layer: self._module(layer) for layer in self.key_table()}

    def prompt_is_cut(self, text: str) -> bool:
        """Whether the text has more tokens than the text encoder reads."""
        tokenizer = self._pipe.tokenizer
        return bool(len(tokenizer(text).input_ids) > tokenizer.model_max_length)

    def encode(self, text: str, wearing: object) -> Tensor:
        """Embedding `[1, tokens, channels]` under the text encoder's present weights, which `wearing` identifies."""
        key = (text, wearing)
        embedding = self._embeddings.pop(key, None)
        if embedding is None:
            embedding = self._pipe.encode_prompt(text, self._pipe.device, 1, False)[0]
        self._embeddings[key] = embedding
        while len(self._embeddings) > _KEPT_EMBEDDINGS:
            self._embeddings.popitem(last=False)
        return embedding

    def sampler(self, name: str, steps: int) -> Any:
        """A diffusers scheduler of one request's own, its timesteps set."""
        scheduler = build_sampler(name, self._scheduler_config)
        scheduler.set_timesteps(steps, device=self._pipe.device)
        return scheduler

    def condition(
        self, prompt: str, negative_prompt: str | None, *, count: int, width: int, height: int, wearing: object
    ) -> Conditioning:
        """Rows of `count` pictures: without the prompt first, unless `negative_prompt` is None, then with it.

        `wearing` identifies the text encoder's present weights.
        """
        texts = (prompt,) if negative_prompt is None else (negative_prompt, prompt)
        return Conditioning(torch.cat([self.encode(text, wearing).expand(count, -1, -1) for text in texts]))

    def start(
        self, scheduler: Any, job: DrawJob, generators: list[torch.Generator], encoded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """First latents `[pictures, channels, rows, columns]` and the timesteps to make on them."""
        return self.noise(scheduler, job.width, job.height, generators), scheduler.timesteps

    def encode_picture(self, raster: Raster, generators: Sequence[torch.Generator]) -> Tensor:
        """Latents of a picture, one draw a generator."""
        raise NotImplementedError

    def noise(self, scheduler: Any, width: int, height: int, generators: list[torch.Generator]) -> Tensor:
        """First latents `[pictures, channels, rows, columns]`, one generator a picture, scaled for the scheduler."""
        self._pipe.scheduler = scheduler
        channels = self._pipe.unet.config.in_channels
        latents: Tensor = self._pipe.prepare_latents(
            len(generators), channels, height, width, torch.float32, self._pipe.device, generators
        )
        return latents

    def step_options(self, scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
        """What diffusers passes to this scheduler's `step`."""
        self._pipe.scheduler = scheduler
        options: dict[str, Any] = self._pipe.prepare_extra_step_kwargs(generators, 0.0)
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

    def decode(self, latents: Tensor) -> Sequence[Raster]:
        """Pictures of latents `[pictures, …]`, rounded as diffusers rounds."""
        vae = self._pipe.vae
        decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        arrays = self._pipe.image_processor.postprocess(decoded, output_type="np")
        pixels = (arrays * 255).round().astype(np.uint8)
        return [Raster(picture.shape[1], picture.shape[0], picture.tobytes()) for picture in pixels]

    def _module(self, layer: str) -> nn.Module:
        component, path = layer.split(".", 1)
        root = self.unet if component == "unet" else self.text_encoder
        try:
            return root.get_submodule(path)
        except AttributeError:
            # transformers 5 dropped this level from CLIPTextModel; adapter files and the key table carry it.
            return root.get_submodule(path.removeprefix("text_model."))


def _padded(rows: Tensor, padding: int) -> Tensor:
    return torch.cat([rows, rows[-1:].expand(padding, *rows.shape[1:])])


def _folder(base_model: str) -> Path:
    path = Path(base_model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute():
        raise FileNotFoundError(f"base model folder {path} does not exist")
    return Path(StableDiffusionPipeline.download(base_model))


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
