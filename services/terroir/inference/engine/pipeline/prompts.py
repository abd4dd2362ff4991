"""Text encoders of a pipeline: one for Stable Diffusion 1.5, two for SDXL; embeddings are kept by text and stack."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import torch
from torch import Tensor

from terroir.inference.engine.pipeline.conditioning import Conditioning

_KEPT: Final = 256

Encoded = tuple[Tensor, Tensor | None]
"""Embedding `[1, tokens, channels]`, and SDXL's pooled one `[1, channels]`."""


class Prompts:
    """Encodes texts under whatever the text encoders wear now. The device thread owns it."""

    def __init__(self, pipe: Any, *, sdxl: bool) -> None:
        """`pipe` is a StableDiffusionPipeline or a StableDiffusionXLPipeline."""
        self._pipe, self._sdxl = pipe, sdxl
        self._kept: OrderedDict[tuple[str, object], Encoded] = OrderedDict()

    def is_cut(self, text: str) -> bool:
        """Whether the text has more tokens than a text encoder reads."""
        tokenizers = [self._pipe.tokenizer, *([self._pipe.tokenizer_2] if self._sdxl else [])]
        return any(len(t(text).input_ids) > t.model_max_length for t in tokenizers if t is not None)

    def condition(
        self, prompt: str, negative_prompt: str | None, *, count: int, width: int, height: int, wearing: object
    ) -> Conditioning:
        """Rows of `count` pictures: without the prompt first, unless `negative_prompt` is None, then with it.

        `wearing` identifies what the text encoders wear: equal texts under equal stacks are encoded once.
        """
        encoded = [self._encode(prompt, wearing)]
        if negative_prompt is not None:
            encoded.insert(0, self._without(negative_prompt, encoded[0], wearing))
        embeddings = torch.cat([embedding.expand(count, -1, -1) for embedding, _ in encoded])
        if not self._sdxl:
            return Conditioning(embeddings)
        pooled = torch.cat([part.expand(count, -1) for _, part in encoded if part is not None])
        return Conditioning(embeddings, pooled, self._time_ids(width, height, pooled.dtype).expand(len(pooled), -1))

    def _without(self, negative_prompt: str, prompt: Encoded, wearing: object) -> Encoded:
        """The rows to steer away from; SDXL was trained with zeros in place of an empty prompt."""
        if self._sdxl and not negative_prompt and self._pipe.config.force_zeros_for_empty_prompt:
            embedding, pooled = prompt
            return torch.zeros_like(embedding), None if pooled is None else torch.zeros_like(pooled)
        return self._encode(negative_prompt, wearing)

    def _encode(self, text: str, wearing: object) -> Encoded:
        key = (text, wearing)
        encoded = self._kept.pop(key, None)
        if encoded is None:
            made = self._pipe.encode_prompt(
                text, device=self._pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            encoded = (made[0], made[2] if self._sdxl else None)
        self._kept[key] = encoded
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return encoded

    def _time_ids(self, width: int, height: int, dtype: torch.dtype) -> Tensor:
        """SDXL's micro-conditioning (Podell et al., arXiv 2307.01952): nothing was cropped, nothing enlarged."""
        size, projection = (height, width), self._pipe.text_encoder_2.config.projection_dim
        ids: Tensor = self._pipe._get_add_time_ids(size, (0, 0), size, dtype, projection)
        return ids.to(self._pipe.device)
