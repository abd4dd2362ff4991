"""The one alpha of a layer, from what its file says of strength."""

from __future__ import annotations

import math

import numpy as np

from terroir.lora.errors import NotFinite, UnsupportedAdapter
from terroir.lora.formats.reading import Factors


def alpha_of(layer: str, factors: Factors, rank: int) -> float:
    """Alpha such that the scale is alpha / rank; absent means rank.

    Raises UnsupportedAdapter for a strength that programs understand differently, NotFinite for one that is no number.
    """
    alpha = float(rank) if factors.alpha is None else factors.alpha
    if factors.scale is not None:
        if factors.alpha is not None and not math.isclose(factors.scale * rank, alpha, rel_tol=1e-3):
            raise UnsupportedAdapter(
                f"{layer}: its scale {factors.scale:g} and its alpha {alpha:g} at rank {rank} differ, and A1111 "
                "takes the first, others the second; keep one in the file",
                key=layer,
                reason="ADAPTER_STRENGTH_UNKNOWN",
            )
        alpha = factors.scale * rank if factors.alpha is None else alpha
    kept = _as_stored(layer, alpha)
    if kept == 0:
        raise UnsupportedAdapter(
            f"{layer}: alpha is {alpha:g}, which sd-scripts takes for the rank and others for no effect; save the file "
            "with usual alphas",
            key=layer,
            reason="ADAPTER_STRENGTH_UNKNOWN",
        )
    return kept


def unused_alpha_of(layer: str, factors: Factors) -> float:
    """Alpha of a module whose scale is 1 whatever alpha says; raises as `alpha_of` does."""
    if factors.scale is not None and not math.isclose(factors.scale, 1, rel_tol=1e-3):
        raise UnsupportedAdapter(
            f"{layer}: its scale is {factors.scale:g}, which A1111 applies and others leave at 1 for two whole "
            "matrices; multiply it into lokr_w1 and drop it",
            key=layer,
            reason="ADAPTER_STRENGTH_UNKNOWN",
        )
    return _as_stored(layer, 1.0 if factors.alpha is None else factors.alpha)


def _as_stored(layer: str, alpha: float) -> float:
    with np.errstate(all="ignore"):
        kept = float(np.float32(alpha))  # as files hold it, so that an adapter stays the same through all of them
    if not math.isfinite(kept):
        raise NotFinite(f"{layer}: alpha is {alpha:g}; it must be a finite number of 32 bits", key=layer)
    return kept
