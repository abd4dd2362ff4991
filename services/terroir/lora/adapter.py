"""The canonical form of an adapter: unscaled factors by layer path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LoraModule:
    """Low-rank change of one layer, `alpha / r * up @ down` (Hu et al., arXiv 2106.09685), r being down's first axis.

    Linear: down `[r, in]`, up `[out, r]`. Convolution: down `[r, in, kh, kw]`, up `[out, r, 1, 1]`.
    """

    down: Array
    up: Array
    alpha: float

    @property
    def rank(self) -> int:
        """Inner dimension r."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """Intrinsic scale, alpha / r."""
        return self.alpha / self.rank

    def delta(self) -> Array:
        """The change at weight 1, in the layer's own shape: `[out, in]` or `[out, in, kh, kw]`."""
        out, inner = self.up.shape[0], self.rank
        flat = self.up.reshape(out, inner) @ self.down.reshape(inner, -1)
        return np.asarray(self.scale * flat, dtype=np.float32).reshape(out, *self.down.shape[1:])


@dataclass(frozen=True, eq=False)
class Adapter:
    """Modules by `<component>.<layer path>`: `unet.down_blocks.0.….attn1.to_q`, `text_encoder.text_model.….q_proj`."""

    modules: Mapping[str, LoraModule]

    @property
    def rank(self) -> int:
        """Largest rank of its modules."""
        return max((module.rank for module in self.modules.values()), default=0)

    @property
    def size_bytes(self) -> int:
        """Bytes that the factors hold in memory."""
        return sum(module.down.nbytes + module.up.nbytes for module in self.modules.values())

    def tensor_digest(self) -> str:
        """SHA-256 (hex) over names, shapes, alphas and fp32 values: the same for every file format and header."""
        digest = hashlib.sha256()
        for name, module in sorted(self.modules.items()):
            head = f"{name}|{module.down.shape}|{module.up.shape}|{module.alpha!r}\n"
            digest.update(head.encode())
            digest.update(np.ascontiguousarray(module.down, dtype="<f4").tobytes())
            digest.update(np.ascontiguousarray(module.up, dtype="<f4").tobytes())
        return digest.hexdigest()
