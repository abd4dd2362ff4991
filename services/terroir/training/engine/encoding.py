"""Latents and text embeddings of a data set, computed once and cached by content.

Cached are mean and standard deviation of the autoencoder's posterior, from which every step samples anew; the key holds
the pixels, the weights that encoded them and nothing else, so an edited picture or another base meets no old entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from terroir.training.engine.pictures import load_pixels, pixels_digest
from terroir.training.engine.ports import ArrayCache, Arrays, Picture, Pictures, TrainRun

_LAYOUT: Final = "1"
"""Raise it when the meaning of a cached array changes."""


@dataclass(frozen=True)
class Encoded:
    """A data set as the denoiser sees it, on the device."""

    means: Tensor
    """`[variants, pictures, channels, height, width]`, scaled as the denoiser expects; variant 1 is mirrored."""
    deviations: Tensor
    """Shaped as `means`."""
    texts: Tensor
    """`[captions, tokens, width]`; the first is the empty caption."""
    captions: tuple[int, ...]
    """Row of `texts` of each picture."""


def with_trigger(caption: str, trigger: str) -> str:
    """The caption, with the trigger word in front unless it is already in it."""
    text = caption.strip()
    if not trigger or trigger.casefold() in text.casefold():
        return text
    return f"{trigger}, {text}" if text else trigger


class PictureEncoder:
    """Encodes pictures one by one, so that what another run has cached changes no bit of the rest."""

    def __init__(self, vae: AutoencoderKL, run: TrainRun, cache: ArrayCache) -> None:
        self._vae = vae
        self._run = run
        self._cache = cache

    def encode(self, pictures: Pictures, after_each: Callable[[int], None]) -> tuple[Tensor, Tensor]:
        """Means and deviations as in `Encoded`; raises PictureUnreadable."""
        mirrors = (False, True) if self._run.config.horizontal_flip else (False,)
        encoded = []
        for number, picture in enumerate(pictures):
            encoded.append([self._one(picture, mirrored) for mirrored in mirrors])
            after_each(number + 1)
        mean, deviation = (
            torch.stack([torch.stack([torch.from_numpy(row[m][key]) for row in encoded]) for m in range(len(mirrors))])
            for key in ("mean", "deviation")
        )
        return mean.to(self._run.device), deviation.to(self._run.device)

    def _one(self, picture: Picture, mirrored: bool) -> Arrays:
        pixels = load_pixels(picture, self._run.config.resolution)
        pixels = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
        key = _key("latents", self._run.component_digests["vae"], pixels_digest(pixels))
        return _cached(self._cache, key, lambda: self._posterior(pixels))

    def _posterior(self, pixels: npt.NDArray[np.uint8]) -> Arrays:
        scaled = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None].to(self._run.device)
        with torch.no_grad():
            posterior = self._vae.encode(scaled).latent_dist
        factor = self._vae.config.scaling_factor
        shift = getattr(self._vae.config, "shift_factor", None) or 0.0
        return {
            "mean": ((posterior.mean - shift) * factor)[0].cpu().numpy(),
            "deviation": (posterior.std * factor)[0].cpu().numpy(),
        }


class CaptionEncoder:
    """Encodes each distinct caption once with the frozen text encoder."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, run: TrainRun, cache: ArrayCache) -> None:
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._run = run
        self._cache = cache

    def encode(self, pictures: Pictures) -> tuple[Tensor, tuple[int, ...]]:
        """Texts and captions as in `Encoded`."""
        trigger = self._run.config.trigger_word or self._run.trigger_word
        captions = [with_trigger(picture.caption, trigger) for picture in pictures]
        rows = {text: row for row, text in enumerate(dict.fromkeys(["", *captions]))}
        texts = torch.stack([torch.from_numpy(self._one(text)["text"]) for text in rows])
        return texts.to(self._run.device), tuple(rows[text] for text in captions)

    def _one(self, text: str) -> Arrays:
        tokens = self._tokenizer(
            text,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens.input_ids
        words = hashlib.sha256(ids.numpy().tobytes()).hexdigest()
        key = _key("texts", self._run.component_digests["text_encoder"], words)
        return _cached(self._cache, key, lambda: self._states(ids))

    def _states(self, ids: Tensor) -> Mapping[str, npt.NDArray[np.float32]]:
        with torch.no_grad():
            states = self._text_encoder(ids.to(self._run.device))[0]
        return {"text": states[0].float().cpu().numpy()}


def _key(*parts: str) -> str:
    return f"{parts[0]}/{hashlib.sha256(':'.join((*parts, _LAYOUT)).encode()).hexdigest()}"


def _cached(cache: ArrayCache, key: str, compute: Callable[[], Arrays]) -> Arrays:
    found = cache.get(key)
    if found is None:
        found = compute()
        cache.put(key, found)
    return found
