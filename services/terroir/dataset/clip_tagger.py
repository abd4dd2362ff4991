"""Zero-shot tagging with CLIP (Radford et al., arXiv 2103.00020).

Imports torch: only the tagger's process may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from terroir.dataset.tagging import Draft, Thumbnail
from terroir.dataset.vocabulary import Slot, Vocabulary


class ClipTagger:
    """Chooses, slot by slot, the label whose texts agree best with the picture."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        """Load model, tokenizer and image processor from a transformers folder; nothing is downloaded."""
        self._model = CLIPModel.from_pretrained(folder, local_files_only=True)
        self._model.eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        self._processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        self._vocabulary = vocabulary
        self._known_texts: dict[str, Tensor] = {}

    @torch.inference_mode()
    def draft(self, pictures: Sequence[Thumbnail]) -> list[Draft]:
        """One draft a picture."""
        images = [Image.frombytes("RGB", (picture.width, picture.height), picture.rgb) for picture in pictures]
        pixels = self._processor(images, return_tensors="pt")["pixel_values"]
        embeddings = self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output)
        return [self._draft(row) for row in torch.nn.functional.normalize(embeddings, dim=-1)]

    def _draft(self, picture: Tensor) -> Draft:
        """`picture` `[channels]`, of length 1."""
        chosen: dict[str, str] = {}
        for slot in self._vocabulary.slots:
            chosen[slot.name] = self._choose(slot, chosen, picture)
        text = self._vocabulary.caption.format(**chosen)
        return Draft(text, float(self._embed([text])[0] @ picture))

    def _choose(self, slot: Slot, chosen: dict[str, str], picture: Tensor) -> str:
        labels = slot.labels()
        scores = torch.zeros(len(labels))
        for template in slot.templates:
            scores += self._embed([template.format(**chosen, **{slot.name: label}) for label in labels]) @ picture
        return labels[int(scores.argmax())]

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings `[texts, channels]`; each text is computed once."""
        new = [text for text in texts if text not in self._known_texts]
        if new:
            tokens = self._tokenizer(new, padding=True, truncation=True, return_tensors="pt")
            embeddings = self._model.text_projection(self._model.text_model(**tokens).pooler_output)
            self._known_texts.update(zip(new, torch.nn.functional.normalize(embeddings, dim=-1), strict=True))
        return torch.stack([self._known_texts[text] for text in texts])
