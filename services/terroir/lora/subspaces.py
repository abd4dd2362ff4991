"""Geometry of low-rank changes: singular values, principal angles, norms and inner products, never the full delta.

A change is `s · up @ down` with r columns, so QR of both factors leaves an r × r core with the same singular values
(Björck & Golub, Mathematics of Computation 27, 1973, for angles between subspaces from such bases). Cost is
O((out + in) r²) time and O((out + in) r) memory a layer, where the delta itself would take out × in.

DoRA: what is compared is the low-rank change of direction. The magnitude vector rescales rows of base + change, so its
effect depends on the base's weights, which are not at hand here; it is left out of every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from terroir.lora.adapter import LoraModule

_UNIFORM: Final = 1e-12
"""A change whose energy lies evenly in all directions there are prefers none, so nothing can be said of it."""
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Thin singular value decomposition of one layer's change at weight 1: `left @ diag(values) @ right.T`."""

    left: Doubles
    """`[out, k]`, orthonormal columns: what the change writes."""
    values: Doubles
    """`[k]`, descending; k ≤ r and every value is above rounding."""
    right: Doubles
    """`[in · kh · kw, k]`, orthonormal columns: what the change reads."""

    @property
    def energy(self) -> float:
        """Squared Frobenius norm of the change."""
        return float(np.sum(self.values**2))

    @property
    def shares(self) -> Doubles:
        """Share of the energy in each direction `[k]`; they sum to 1 unless the change is zero."""
        if not self.values.size:
            return self.values
        relative = (self.values / self.values[0]) ** 2
        return np.asarray(relative / relative.sum(), dtype=np.float64)


def spectrum(module: LoraModule) -> Spectrum:
    """Decompose a layer's change; directions that factors only span by rounding are dropped, so zero has none."""
    left, left_core = np.linalg.qr(_matrix(module.up).astype(np.float64))
    right, right_core = np.linalg.qr(_matrix(module.down).T.astype(np.float64))
    turn, values, other = np.linalg.svd(module.scale * (left_core @ right_core.T), full_matrices=False)
    # Rounding of the float32 factors, not of this computation, decides what a direction is.
    kept = values > (values.max(initial=0.0) * np.finfo(np.float32).eps * max(turn.shape[0], other.shape[1]))
    return Spectrum(left @ turn[:, kept], values[kept], right @ other[kept].T)


def inner_product(first: LoraModule, second: LoraModule) -> float:
    """⟨ΔW1, ΔW2⟩ at weight 1 as the trace of a rank-sized product: tr(down1ᵀ up1ᵀ up2 down2)."""
    written = _matrix(first.up).T.astype(np.float64) @ _matrix(second.up).astype(np.float64)
    read = _matrix(first.down).astype(np.float64) @ _matrix(second.down).T.astype(np.float64)
    return first.scale * second.scale * float(np.sum(written * read))


def frobenius_norm(module: LoraModule) -> float:
    """‖ΔW‖ at weight 1, without the delta."""
    return float(np.sqrt(max(inner_product(module, module), 0.0)))


def principal_cosines(first: Doubles, second: Doubles) -> Doubles:
    """Cosines of the principal angles between two spaces given by orthonormal columns, descending, 0 … 1.

    `min(k1, k2)` of them: 1 is a shared direction, 0 one that is orthogonal to all of the other space.
    """
    if not first.shape[1] or not second.shape[1]:
        return np.zeros(0)
    return np.clip(np.linalg.svd(first.T @ second, compute_uv=False), 0.0, 1.0)


def energy_overlap(first: Doubles, first_shares: Doubles, second: Doubles, second_shares: Doubles) -> float:
    """How far the energy of two changes lies in the same directions: 1 if equal, 0 if no more than random ones do.

    Correlation of `P1 = V1 diag(p1) V1ᵀ` and `P2` likewise, both less their mean I / n: squared cosines of the angles
    between singular directions, weighted by the share of energy in each, so that idle directions of a too large rank
    do not count, against what directions drawn at random in n dimensions would share, so that bases of different width
    compare. Below 0 where the two avoid each other.
    """
    if not first_shares.size or not second_shares.size:
        return 0.0
    chance = 1 / first.shape[0]
    met = float(first_shares @ (first.T @ second) ** 2 @ second_shares) - chance
    own = [float(shares @ shares) - chance for shares in (first_shares, second_shares)]
    if min(own) < _UNIFORM:
        return 0.0
    return max(-1.0, min(met / float(np.sqrt(own[0] * own[1])), 1.0))


def _matrix(factor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Two axes: a convolution's window belongs to what it reads."""
    return factor.reshape(factor.shape[0], -1)
