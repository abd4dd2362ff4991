"""Pictures of a checkpoint by the path that the inference service takes: diffusers' pipeline with merged weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import nn
from transformers.utils import logging as transformers_logging

from terroir.lora.adapter import Adapter
from terroir.training.errors import BaseUnreadable
from terroir.training.judging.errors import PictureNotFinite
from terroir.training.judging.merged_weights import worn

SAMPLER: Final = "ddim"
"""What the inference service draws with where a request names no sampler."""
STEPS: Final = 20
"""What it does where a request names no number."""
GUIDANCE_SCALE: Final = 3.0
"""Its setting's default."""
_PIXELS_A_BATCH: Final = {"cpu": 16 * 64 * 64, "cuda": 8 * 512 * 512}
"""Larger batches are no faster, and take memory."""
_MOST_PICTURES: Final = 16
_TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Sketch:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Manner:
    """How pictures are drawn; with the base, the adapter and the sketch it decides every pixel."""

    steps: int = STEPS
    guidance_scale: float = GUIDANCE_SCALE
    side: int = 0
    """Pixels of the square picture; 0: the base's native side."""


class Studio:
    """A base that draws, with one adapter after the other or none."""

    def __init__(self, base_dir: Path, device: str = "cpu") -> None:
        """Load a diffusers folder (SD 1.x or SDXL), in fp32 on a CPU and fp16 on a GPU; raises BaseUnreadable."""
        diffusers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        self._device = device
        self._kind = torch.device(device).type
        self._pipe = _load(base_dir, torch.float16 if self._kind == "cuda" else torch.float32)
        self._pipe.to(device)
        self._pipe.scheduler = DDIMScheduler.from_config(self._pipe.scheduler.config)
        self._components: Mapping[str, nn.Module] = {
            name: module.requires_grad_(False).eval()
            for name in ("unet", *_TEXT_ENCODERS)
            if (module := getattr(self._pipe, name, None)) is not None
        }
        for module in (self._pipe.unet, self._pipe.vae):
            module.to(memory_format=torch.channels_last)

    @property
    def native_side(self) -> int:
        """Pixels of the square pictures that the base was trained on."""
        return int(self._pipe.unet.config.sample_size * self._pipe.vae_scale_factor)

    @torch.inference_mode()
    def draw(
        self,
        adapter: Adapter | None,
        sketches: Sequence[Sketch],
        manner: Manner,
        on_pictures: Callable[[int], None] = lambda _: None,
        before_step: Callable[[], None] = lambda: None,
    ) -> list[Image.Image]:
        """One RGB picture a sketch, the adapter at weight 1.

        `on_pictures` hears of every batch; `before_step` is called between denoising steps. Both may raise to stop.
        Raises AdapterUnfit, and PictureNotFinite where the adapter drives the base out of the numbers' range.
        """
        side = manner.side or self.native_side
        size = max(1, min(_MOST_PICTURES, _PIXELS_A_BATCH[self._kind] // (side * side)))
        pictures: list[Image.Image] = []
        with worn(self._components, adapter):
            for start in range(0, len(sketches), size):
                batch = sketches[start : start + size]
                pictures += self._batch(batch, manner, side, before_step)
                on_pictures(len(batch))
        return pictures

    def _batch(
        self, batch: Sequence[Sketch], manner: Manner, side: int, before_step: Callable[[], None]
    ) -> list[Image.Image]:
        def stepped(_pipe: Any, _number: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            before_step()
            return tensors

        drawn = self._pipe(
            [sketch.prompt for sketch in batch],
            num_inference_steps=manner.steps,
            guidance_scale=manner.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(sketch.seed) for sketch in batch],
            width=side,
            height=side,
            output_type="pt",
            callback_on_step_end=stepped,
        ).images
        for sketch, picture in zip(batch, drawn, strict=True):
            if not bool(torch.isfinite(picture).all()):
                raise PictureNotFinite(
                    f"seed {sketch.seed} is not finite: the adapter's weights overflow the base "
                    "(lower learning_rate, or choose an earlier checkpoint)"
                )
        pixels = (drawn.float().permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)
        return [Image.fromarray(picture) for picture in pixels]


def _load(folder: Path, dtype: torch.dtype) -> Any:
    """Each pipeline class is imported only where it is needed: an import takes a second."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
        if str(index["_class_name"]).startswith("StableDiffusionXL"):
            from diffusers import StableDiffusionXLPipeline

            pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False, **options)
        else:
            from diffusers import StableDiffusionPipeline

            pipe = StableDiffusionPipeline.from_pretrained(
                folder, safety_checker=None, requires_safety_checker=False, **options
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BaseUnreadable(f"base {folder} cannot draw ({error}); copy the whole diffusers folder") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe
