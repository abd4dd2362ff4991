"""One request on the device: its latents, its own scheduler, how far it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from terroir.inference.engine.merging import Merged, Merger
from terroir.inference.engine.messages import DrawJob, Raster
from terroir.inference.engine.model import Model

_GUIDANCE_OFF: Final = 1.0


class Drawing:
    """State between two steps; `rows` go into a shared denoiser call and `advance` takes its answer."""

    def __init__(self, job: DrawJob, model: Model, merger: Merger) -> None:
        """Encode the prompt, draw the first noise and hold the merged weights until `close`."""
        self.job = job
        self.began = time.monotonic()
        self.step = 0
        self._model = model
        self._merger = merger
        self.merged: Merged = merger.hold(job.composition)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        job, model = self.job, self._model
        self._scheduler = model.sampler(job.sampler, job.steps)
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in job.seeds]
        self._latents = model.noise(self._scheduler, job.width, job.height, self._generators)
        self._options = model.step_options(self._scheduler, self._generators)
        self._denoised: Tensor | None = None
        wearing = tuple((p.digest, p.text_encoder_weight) for p in job.composition.parts if p.text_encoder_weight)
        texts = (job.negative_prompt, job.prompt) if self.guided else (job.prompt,)
        with self._merger.worn(self.merged):
            encoded = [model.encode(text, wearing).expand(len(job.seeds), -1, -1) for text in texts]
        self.embeddings = torch.cat(encoded)
        self.cut_texts = [text for text in texts if model.prompt_is_cut(text)]

    @property
    def guided(self) -> bool:
        """Whether rows come twice, without and with the prompt."""
        return self.job.guidance_scale > _GUIDANCE_OFF

    @property
    def row_count(self) -> int:
        """Rows that it adds to a denoiser call."""
        return len(self.job.seeds) * (2 if self.guided else 1)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Requests with equal keys may share a denoiser call.

        Composition: this plan wears one merged copy a call. Shapes: rows of one tensor must agree.
        """
        return self.job.composition, tuple(self._latents.shape[1:]), tuple(self.embeddings.shape[1:])

    @property
    def denoised(self) -> bool:
        """Whether all steps are done."""
        return self.step == len(self._scheduler.timesteps)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Scaled latents `[rows, …]` and their timesteps `[rows]` for the next step."""
        timestep = self._scheduler.timesteps[self.step]
        latents = torch.cat([self._latents] * 2) if self.guided else self._latents
        latents = self._scheduler.scale_model_input(latents, timestep)
        # Samplers disagree on integer or float timesteps; the denoiser embeds them as float either way.
        return latents, timestep.to(torch.float32).expand(self.row_count)

    def advance(self, prediction: Tensor) -> None:
        """Take the denoiser's answer for this request's rows and do one step of its scheduler."""
        if self.guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + self.job.guidance_scale * (with_prompt - without)
        timestep = self._scheduler.timesteps[self.step]
        result: Any = self._scheduler.step(prediction, timestep, self._latents, **self._options, return_dict=True)
        self._latents = result.prev_sample
        self._denoised = getattr(result, "pred_original_sample", None)
        self.step += 1

    @property
    def finite(self) -> bool:
        """Whether the latents are numbers; too large weights end in NaN."""
        return bool(torch.isfinite(self._latents).all())

    def preview(self) -> Sequence[Raster]:
        """The pictures as they would be if denoising ended here."""
        return self._model.decode(self._latents if self._denoised is None else self._denoised)

    def picture(self, index: int) -> Raster:
        """One finished picture."""
        return self._model.decode(self._latents[index : index + 1])[0]

    def close(self) -> None:
        """Give the merged weights back."""
        self._merger.release(self.job.composition)
