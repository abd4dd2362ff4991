"""Masks that weigh the loss by place: white counts, black does not."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from terroir.training.engine.data.framing import Frame
from terroir.training.engine.data.pictures import Decoded, decode_mask
from terroir.training.engine.ports import Picture
from terroir.training.errors import PictureUnreadable

Mask = npt.NDArray[np.uint8]
"""Weights `[height, width]` at the size of the pixels, 255 for 1."""
_TOLERANCE: Final = 0.01
"""By how much a mask's aspect ratio may differ from its picture's: masks of another resolution are rounded."""


def mask_of(picture: Picture, decoded: Decoded) -> Image.Image | None:
    """The picture's own mask, else its alpha channel, else None: all of it counts.

    Raises PictureUnreadable: MASK_SHAPE for a mask of another aspect ratio, MASK_EMPTY for one that leaves nothing.
    """
    mask = decoded.alpha if picture.mask is None else decode_mask(picture, picture.mask)
    if mask is None:
        return None
    width, height = decoded.size
    if abs(mask.width * height - mask.height * width) > _TOLERANCE * mask.width * height:
        raise PictureUnreadable(
            f"the mask of picture {picture.name} is {mask.width} × {mask.height}, the picture {width} × {height}: "
            "give both the same size",
            reason="MASK_SHAPE",
        )
    if not mask.getbbox():
        raise PictureUnreadable(
            f"the mask of picture {picture.name} is black everywhere, so nothing of it is learned; paint what counts "
            "white or remove the picture",
            reason="MASK_EMPTY",
        )
    return mask


def cut_mask(mask: Image.Image | None, frame: Frame, erased: tuple[slice, slice] | None) -> Mask | None:
    """The mask of a framed picture; what was erased weighs nothing."""
    if mask is None and erased is None:
        return None
    if mask is None:
        weights = np.full(frame.target[::-1], 255, np.uint8)
    else:
        weights = np.array(frame.cut(mask, Image.Resampling.BOX), dtype=np.uint8)
    if erased is not None:
        weights[erased] = 0
    return weights


def latent_weights(mask: Mask, factor: int, unmasked_weight: float) -> Tensor:
    """Loss weights `[1, height, width]` of latents that each stand for `factor` × `factor` pixels, by area.

    `unmasked_weight` is what black weighs.
    """
    height, width = (side // factor for side in mask.shape)
    shares = mask.reshape(height, factor, width, factor).mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return torch.from_numpy(shares * (1 - unmasked_weight) + np.float32(unmasked_weight))[None]
