"""Keys of cached arrays: the digest of all that they were computed from."""

from __future__ import annotations

import hashlib
from typing import Final

import torch

_LAYOUT: Final = "2"
"""Raise it when the meaning of a cached array changes."""


def cache_key(kind: str, device: str, dtype: torch.dtype, *sources: str) -> str:
    """Key of a `kind` of arrays; processors and graphics cards round differently, so they share none."""
    parts = (kind, _LAYOUT, device.partition(":")[0], str(dtype), *sources)
    return f"{kind}/{hashlib.sha256(':'.join(parts).encode()).hexdigest()}"
