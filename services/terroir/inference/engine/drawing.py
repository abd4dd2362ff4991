"""One request on the device: its latents, its own scheduler, how far it is."""

from __future__ import annotations

import time
from typing import Any, Final

import torch
from torch import Tensor

from terroir.inference.engine.decoding import Encoded
from terroir.inference.engine.messages import DrawJob
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.wearing.stacks import Stacks

_GUIDANCE_OFF: Final = 1.0


class Drawing:
    """State between two steps; `rows` go into a shared denoiser call and `advance` takes its answer."""

    def __init__(self, job: DrawJob, model: Model, stacks: Stacks, encoded: Encoded | None = None) -> None:
        """Encode the prompt, draw the first noise and hold the composition until `close`.

        `encoded` is the job's own picture, if it starts from one.
        """
        self.job = job
        self.began = time.monotonic()
        self.step = 0
        self._stacks = stacks
        stacks.join(job.composition)
        try:
            self._prepare(model, encoded)
        except BaseException:
            self.close()
            raise

    def _prepare(self, model: Model, encoded: Encoded | None) -> None:
        job = self.job
        wearing = tuple((p.digest, p.text_encoder_weight) for p in job.composition.parts if p.text_encoder_weight)
        negative_prompt = job.negative_prompt if self.guided else None
        with self._stacks.worn_by_text(job.composition):
            self.conditioning = model.condition(
                job.prompt, negative_prompt, count=len(job.seeds), width=job.width, height=job.height, wearing=wearing
            )
        texts = (job.prompt,) if negative_prompt is None else (negative_prompt, job.prompt)
        self.cut_texts = [text for text in texts if model.prompt_is_cut(text)]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in job.seeds]
        source = None if encoded is None else encoded.latents
        self._scheduler = model.sampler(job.sampler, job.steps)
        begun = model.start(self._scheduler, job, generators if encoded is None else encoded.generators, source)
        self._latents, self._timesteps = begun.latents, begun.timesteps
        self._options = model.step_options(self._scheduler, begun.generators)
        self._denoised: Tensor | None = None

    @property
    def guided(self) -> bool:
        """Whether rows come twice, without and with the prompt."""
        return is_guided(self.job)

    @property
    def row_count(self) -> int:
        """Rows that it adds to a denoiser call."""
        return rows_of(self.job)

    @property
    def total_steps(self) -> int:
        """Steps that it makes in all; fewer than asked for where it starts from a picture."""
        return len(self._timesteps)

    @property
    def shape(self) -> tuple[object, ...]:
        """Requests with equal shapes may share a denoiser call.

        Latents and conditioning: their tensors are stacked. Precision: stacked tensors have one. Guidance on or off: so
        that every picture has the same number of rows, which slots are counted by.
        """
        return tuple(self._latents.shape[1:]), self._latents.dtype, self.conditioning.key, self.guided

    @property
    def denoised(self) -> bool:
        """Whether all steps are done."""
        return self.step == len(self._timesteps)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Scaled latents `[rows, …]` and their timesteps `[rows]` for the next step."""
        timestep = self._timesteps[self.step]
        latents = torch.cat([self._latents] * 2) if self.guided else self._latents
        latents = self._scheduler.scale_model_input(latents, timestep)
        # Samplers disagree on integer or float timesteps; the denoiser embeds them as float either way.
        return latents, timestep.to(torch.float32).expand(self.row_count)

    def advance(self, prediction: Tensor) -> None:
        """Take the denoiser's answer for this request's rows and do one step of its scheduler."""
        if self.guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + self.job.guidance_scale * (with_prompt - without)
        timestep = self._timesteps[self.step]
        result: Any = self._scheduler.step(prediction, timestep, self._latents, **self._options, return_dict=True)
        self._latents = result.prev_sample
        self._denoised = getattr(result, "pred_original_sample", None)
        if self._denoised is None:
            self._denoised = _data_prediction(self._scheduler)
        self.step += 1

    @property
    def latents(self) -> Tensor:
        """`[pictures, channels, rows, columns]` as they are now."""
        return self._latents

    @property
    def outlook(self) -> Tensor:
        """What the latents would be if denoising ended here, as far as the sampler says so."""
        return self._latents if self._denoised is None else self._denoised

    def close(self) -> None:
        """Let go of the composition."""
        self._stacks.leave(self.job.composition)


def is_guided(job: DrawJob) -> bool:
    """Whether a job's rows come twice, without and with the prompt."""
    return job.guidance_scale > _GUIDANCE_OFF


def rows_of(job: DrawJob) -> int:
    """Rows that a job adds to a denoiser call."""
    return len(job.seeds) * (2 if is_guided(job) else 1)


def _data_prediction(scheduler: Any) -> Tensor | None:
    """The picture that a multistep sampler expects, as it keeps it; None where the base has it keep the noise."""
    config = scheduler.config
    keeps = str(config.get("algorithm_type", "")).endswith("dpmsolver++") or config.get("predict_x0", False)
    return scheduler.model_outputs[-1] if keeps else None
