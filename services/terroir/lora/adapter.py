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
    magnitude: Array | None = None
    """DoRA (Liu et al., arXiv 2402.09353): length `[out]` that every output row of `W + delta` is given."""

    @property
    def rank(self) -> int:
        """Inner dimension r."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """Intrinsic scale, alpha / r."""
        return self.alpha / self.rank

    def delta(self) -> Array:
        """The low-rank change at weight 1, in the layer's own shape: `[out, in]` or `[out, in, kh, kw]`.

        All of the change, unless the module has a magnitude: then see `change_of`.
        """
        out, inner = self.up.shape[0], self.rank
        flat = self.up.reshape(out, inner) @ self.down.reshape(inner, -1)
        return np.asarray(self.scale * flat, dtype=np.float32).reshape(out, *self.down.shape[1:])

    def change_of(self, base: Array) -> Array:
        """The change at weight 1 of the base weight `base`, a magnitude included; fp32, in the layer's own shape.

        With a magnitude m it is `m * (W + delta) / |W + delta| - W`, rows being normed over all other axes, as PEFT and
        ComfyUI compute it at weight 1.
        """
        delta = self.delta()
        if self.magnitude is None:
            return delta
        directed = base + delta
        lengths = np.linalg.norm(directed.reshape(directed.shape[0], -1), axis=1)
        factors = self.magnitude / np.maximum(lengths, np.finfo(np.float32).tiny)
        return np.asarray(directed * factors.reshape(-1, *([1] * (directed.ndim - 1))) - base, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Adapter:
    """Modules by `<component>.<layer path>`: `unet.down_blocks.0.….attn1.to_q`, `text_encoder.text_model.….q_proj`.

    SDXL has a `text_encoder_2` too.
    """

    modules: Mapping[str, LoraModule]

    @property
    def rank(self) -> int:
        """Largest rank of its modules."""
        return max((module.rank for module in self.modules.values()), default=0)

    @property
    def size_bytes(self) -> int:
        """Bytes that the factors hold in memory."""
        return sum(
            module.down.nbytes + module.up.nbytes + (0 if module.magnitude is None else module.magnitude.nbytes)
            for module in self.modules.values()
        )

    @property
    def has_magnitudes(self) -> bool:
        """Whether a module is a DoRA."""
        return any(module.magnitude is not None for module in self.modules.values())

    def tensor_digest(self) -> str:
        """SHA-256 (hex) over names, shapes, alphas and fp32 values: the same for every file format and header."""
        digest = hashlib.sha256()
        for name, module in sorted(self.modules.items()):
            head = f"{name}|{module.down.shape}|{module.up.shape}|{module.alpha!r}\n"
            digest.update(head.encode())
            digest.update(np.ascontiguousarray(module.down, dtype="<f4").tobytes())
            digest.update(np.ascontiguousarray(module.up, dtype="<f4").tobytes())
            if module.magnitude is not None:
                digest.update(b"magnitude\n" + np.ascontiguousarray(module.magnitude, dtype="<f4").tobytes())
        return digest.hexdigest()
