"""Image–text agreement by a CLIP model from a folder or a hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from terroir.scoring.embedding import Vectors

_BATCH: Final = 64


class ClipScorer:
    """Embeds pictures and texts into one space; unit vectors, so that a dot product is a cosine."""

    def __init__(self, model: Path | str, device: str = "cpu") -> None:
        """Load `model`, a transformers CLIP folder or hub name, in fp32."""
        self._device = device
        self._model = CLIPModel.from_pretrained(model, torch_dtype=torch.float32).to(device).eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(model)
        self._processor = CLIPImageProcessor.from_pretrained(model)

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Unit vectors `[picture, width]`."""
        return np.concatenate([self._batch(pictures[at : at + _BATCH]) for at in range(0, len(pictures), _BATCH)])

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors `[text, width]`; texts beyond the model's length are cut."""
        longest = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        pooled = self._model.text_model(**tokens.to(self._device)).pooler_output
        return _unit(self._model.text_projection(pooled))

    def agreement(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Cosine of each picture with the text at its position, -1 … 1."""
        return np.einsum("pw,pw->p", self.pictures(pictures), self.texts(texts))

    def _batch(self, pictures: Sequence[Image.Image]) -> Vectors:
        pixels = self._processor(images=[p.convert("RGB") for p in pictures], return_tensors="pt").pixel_values
        pooled = self._model.vision_model(pixel_values=pixels.to(self._device)).pooler_output
        return _unit(self._model.visual_projection(pooled))


def _unit(vectors: torch.Tensor) -> Vectors:
    unit: Vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return unit
