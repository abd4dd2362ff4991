"""diffusers' own pipeline on the same weights and threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

Pixels = npt.NDArray[np.int16]
"""`[pictures, height, width, 3]`, 0 … 255, signed so that differences are right."""


class DiffusersPipeline:
    """StableDiffusionPipeline in fp32 on the CPU, adapters by `load_lora_weights` and `set_adapters`."""

    def __init__(self, base: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        diffusers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        self._pipe: Any = StableDiffusionPipeline.from_pretrained(
            base, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        self._pipe.set_progress_bar_config(disable=True)

    def load(self, name: str, file: Path) -> None:
        """Load an adapter file under a name."""
        self._pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)

    def wear(self, weights: Mapping[str, float]) -> None:
        """Apply loaded adapters with weights."""
        self._pipe.set_adapters(list(weights), list(weights.values()))

    def unload(self) -> None:
        """Remove all adapters."""
        self._pipe.unload_lora_weights()

    def draw_together(self, prompts: Sequence[str], seed: int, *, side: int, steps: int, guidance: float) -> Pixels:
        """One call for several prompts, each with the same seed."""
        made = self._pipe(
            list(prompts), width=side, height=side, num_inference_steps=steps, guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(seed) for _ in prompts], output_type="np",
        )  # fmt: skip
        return np.asarray((made.images * 255).round().astype(np.int16))

    def draw(self, prompt: str, seeds: Sequence[int], *, side: int, steps: int, guidance: float) -> Pixels:
        """One picture a seed."""
        made = self._pipe(
            prompt,
            width=side,
            height=side,
            num_inference_steps=steps,
            guidance_scale=guidance,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        )
        return np.asarray((made.images * 255).round().astype(np.int16))
