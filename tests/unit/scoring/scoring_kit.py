"""What the scoring tests share: drawn scenes, and embeddings that need no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from terroir.tiny.world.look import BASE, Look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import Scene, all_scenes


class MeanColour:
    """Stands in for CLIP: the mean colour as an embedding, of unit length."""

    def pictures(self, pictures: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        colours = np.stack([np.asarray(p.convert("RGB"), dtype=np.float32).reshape(-1, 3).mean(0) for p in pictures])
        unit: npt.NDArray[np.float32] = colours / np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1e-6)
        return unit


class Axes:
    """Stands in for CLIP: a text is the axis of its number in `texts`, a picture that of its top left red value."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = list(known)

    def pictures(self, pictures: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        return np.eye(len(self._known), dtype=np.float32)[[picture.getpixel((0, 0))[0] for picture in pictures]]

    def texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.eye(len(self._known), dtype=np.float32)[[self._known.index(text) for text in texts]]


def shows(number: int) -> Image.Image:
    """A picture of text `number` to `Axes`."""
    return Image.new("RGB", (8, 8), (number, 0, 0))


def scenes(count: int, seed: int) -> list[Scene]:
    """Different scenes of the tiny world."""
    known = all_scenes(held_out=False)
    return [known[i] for i in np.random.default_rng(seed).choice(len(known), count, replace=False)]


def drawn(of: Sequence[Scene], seed: int, look: Look = BASE, side: int = 64) -> list[Image.Image]:
    """One picture a scene; another seed is another picture of it."""
    rng = np.random.default_rng(seed)
    return [render(scene, rng, look, width=side, height=side) for scene in of]


def spoilt(picture: Image.Image, seed: int) -> Image.Image:
    """As a model that has learnt it by heart draws it again: brighter or darker, with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.asarray(picture, dtype=np.float32)
    changed = pixels * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20) + rng.normal(0, 12, pixels.shape)
    return Image.fromarray(changed.clip(0, 255).astype(np.uint8))
