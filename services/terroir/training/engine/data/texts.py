"""States of captions, which the frozen text encoders compute once, or their tokens, where the encoders are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from terroir.training.engine.data.keys import cache_key
from terroir.training.engine.families.interface import Family, TextStates
from terroir.training.engine.ports import ArrayCache, Arrays, TrainRun


@dataclass(frozen=True)
class TextTable:
    """All texts of a run on the host; one of the two is there."""

    states: TextStates | None
    """`[texts, …]`."""
    tokens: Tensor | None
    """Token ids `[texts, encoders, tokens]`."""


class CaptionEncoder:
    """Encodes text by text, so that what another run has cached changes no bit of the rest."""

    def __init__(self, family: Family, run: TrainRun, cache: ArrayCache) -> None:
        self._family = family
        self._run = run
        self._cache = cache
        encoders = family.text_encoders.items()
        self._weights = [run.component_digests[component] for component, _ in encoders]
        self._dtype = next(next(iter(family.text_encoders.values())).parameters()).dtype

    def encode(self, texts: Sequence[str], after_each: Callable[[], None]) -> TextTable:
        """States of every text, or only tokens if `text_encoder_lr` is set; calls `after_each` text."""
        tokens = self._family.tokenize(texts)
        if self._run.config.text_encoder_lr is not None:
            return TextTable(None, tokens)
        rows = []
        for ids in tokens:
            rows.append(self._one(ids))
            after_each()
        states = torch.stack([torch.from_numpy(row["states"]) for row in rows])
        pooled = [torch.from_numpy(row["pooled"]) for row in rows if "pooled" in row]
        return TextTable(TextStates(states, torch.stack(pooled) if pooled else None), None)

    def _one(self, ids: Tensor) -> Arrays:
        words = hashlib.sha256(repr(tuple(ids.shape)).encode() + ids.numpy().tobytes()).hexdigest()
        layer = f"clip_skip {self._run.config.clip_skip}"
        key = cache_key("texts", self._run.device, self._dtype, *self._weights, layer, words)
        found = self._cache.get(key)
        if found is None:
            found = self._states(ids)
            self._cache.put(key, found)
        return found

    def _states(self, ids: Tensor) -> Arrays:
        with torch.no_grad():
            texts = self._family.encode_texts(ids[None].to(self._run.device))
        arrays = {"states": texts.states[0].float().cpu().numpy()}
        if texts.pooled is not None:
            arrays["pooled"] = texts.pooled[0].float().cpu().numpy()
        return arrays
