"""CLIP text encoders as diffusers' pipelines use them: which layer's states, which token's pooled state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from terroir.training.errors import BaseUnreadable


@dataclass(frozen=True)
class ClipText:
    """A tokenizer with the encoder that belongs to it."""

    tokenizer: CLIPTokenizer
    encoder: CLIPTextModel | CLIPTextModelWithProjection

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids `[captions, tokens]`, int64, padded and cut to the encoder's length."""
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids: Tensor = tokens.input_ids
        return ids

    def last_states(self, tokens: Tensor, clip_skip: int) -> Tensor:
        """States `[texts, tokens, width]` before the last `clip_skip - 1` layers, normed as the last ones are."""
        encoder: Any = self.encoder
        if clip_skip == 1:
            states: Tensor = encoder(tokens).last_hidden_state
            return states
        hidden = self._hidden(encoder(tokens, output_hidden_states=True), clip_skip)
        normed: Tensor = encoder.final_layer_norm(hidden)
        return normed

    def raw_states(self, tokens: Tensor, clip_skip: int) -> tuple[Tensor, Tensor]:
        """States as SDXL takes them, not normed, and the first output: the projected one of encoders that project."""
        output = self.encoder(tokens, output_hidden_states=True)
        first: Tensor = output[0]
        return self._hidden(output, clip_skip), first

    def _hidden(self, output: Any, clip_skip: int) -> Tensor:
        states: Sequence[Tensor] = output.hidden_states  # of the embedding and of every layer
        if clip_skip >= len(states):
            raise BaseUnreadable(
                f"clip_skip {clip_skip} leaves none of the text encoder's {len(states) - 1} layers "
                f"(use {len(states) - 1} at most)",
                reason="CLIP_SKIP_TOO_LARGE",
                field="clip_skip",
            )
        return states[-clip_skip]


def stacked(texts: Sequence[ClipText], captions: Sequence[str]) -> Tensor:
    """Token ids `[captions, encoders, tokens]`."""
    ids = [text.tokenize(captions) for text in texts]
    lengths = sorted({row.shape[1] for row in ids})
    if len(lengths) > 1:
        raise BaseUnreadable(
            f"the base's tokenizers cut at {' and '.join(map(str, lengths))} tokens; make model_max_length equal in "
            "their tokenizer_config.json"
        )
    return torch.stack(ids, dim=1)
