"""Measure what the quality gates judge: facts, which thresholds are held against later.

Everything but size and digest is taken from a copy whose long side is at most 512 pixels, the scale at which training
sees a picture; smaller pictures are never enlarged, since interpolation would look like blur.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terroir.dataset.model import Measurement
from terroir.dataset.picture import read_upright_rgb

MEASURES_VERSION: Final = 1
"""Part of the gates' identifier: raise it when a measurement below changes its meaning."""

_WORKING_SIDE: Final = 512
_STRIP_ROWS: Final = 256
_HASH_SIDE: Final = 32
_HASH_WAVES: Final = 8


def measure(data: bytes, pixel_limit: int) -> Measurement:
    """Read a picture file and measure it. Raises `UnreadableError`."""
    image, animated = read_upright_rgb(data, pixel_limit)
    small = _working_grey(image)
    grey = np.asarray(small, dtype=np.float64)
    low, high = np.percentile(grey, [1.0, 99.0])
    return Measurement(
        width=image.width,
        height=image.height,
        animated=animated,
        pixel_digest=_pixel_digest(image),
        perceptual_hash=perceptual_hash(small),
        sharpness=sharpness(grey),
        highlights=float(high) / 255.0,
        shadows=float(low) / 255.0,
        entropy_bits=_entropy_bits(grey),
    )


def sharpness(grey: NDArray[np.float64]) -> float:
    """Variance of the Laplacian over the variance of `grey` `[height, width]`, 0 (flat or soft) … about 20 (noise).

    Dividing by the variance makes a low-contrast picture comparable with a bold one.
    """
    if min(grey.shape) < 3:
        return 0.0
    variance = float(grey.var())
    if variance < 1e-6:
        return 0.0
    centre = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4.0 * centre
    return float(laplacian.var()) / variance


def perceptual_hash(image: Image.Image) -> str:
    """DCT hash of 64 bits as 16 hexadecimal digits (Zauner 2010, "pHash"): re-encodes and resizes keep most bits."""
    small = image.convert("L").resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS)
    waves = _dct_basis() @ np.asarray(small, dtype=np.float64) @ _dct_basis().T
    # The constant wave says how bright the picture is, not what it shows, so it has no part in the median.
    bits = waves.ravel() > np.median(waves.ravel()[1:])
    return np.packbits(bits).tobytes().hex()


def _dct_basis() -> NDArray[np.float64]:
    wave = np.arange(_HASH_WAVES)[:, None]
    place = np.arange(_HASH_SIDE)[None, :]
    return np.cos(np.pi * wave * (2 * place + 1) / (2 * _HASH_SIDE))


def _working_grey(image: Image.Image) -> Image.Image:
    scale = min(1.0, _WORKING_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0).convert("L")


def _entropy_bits(grey: NDArray[np.float64]) -> float:
    counts = np.bincount(grey.astype(np.uint8).ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _pixel_digest(image: Image.Image) -> str:
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    for top in range(0, image.height, _STRIP_ROWS):
        # In strips, so that a picture at the pixel limit is not in memory twice.
        digest.update(image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))).tobytes())
    return digest.hexdigest()
