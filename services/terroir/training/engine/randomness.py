"""Randomness as a function of where it is used, so that there is no generator state to save.

The order of pictures follows from (seed, epoch); noise, timestep, flip and caption dropout from (seed, step, sample).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one use; equal arguments give equal numbers on every machine."""
    name = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one use."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


class PictureOrder:
    """Which picture each sample of a run uses: every epoch is a permutation of its own."""

    def __init__(self, seed: int, pictures: int, purpose: str = "order") -> None:
        self._pictures = pictures
        self._epoch = lru_cache(maxsize=2)(
            lambda epoch: torch.randperm(pictures, generator=generator(seed, purpose, epoch)).tolist()
        )

    def picture(self, sample: int) -> int:
        """Index of the picture that sample number `sample` (from 0, over the whole run) uses."""
        epoch, position = divmod(sample, self._pictures)
        return int(self._epoch(epoch)[position])
