"""Adapters for tests: random factors over a small table of layers."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from terroir.lora.adapter import Adapter, LoraModule

TABLE = {
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (8, 6),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": (8, 8),
    "unet.down_blocks.0.attentions.0.proj_in": (8, 8, 1, 1),
    "unet.down_blocks.0.resnets.0.conv1": (8, 4, 3, 3),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (6, 6),
}


def random_adapter(seed: int, rank: int = 2, alpha: float = 3.0, layers: tuple[str, ...] = tuple(TABLE)) -> Adapter:
    """Factors representable in half precision, so that no file format rounds them."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float16).astype(np.float32)

    modules = {}
    for layer in layers:
        out, *inner = TABLE[layer]
        tail = (1, 1) if len(inner) == 3 else ()
        modules[layer] = LoraModule(draw(rank, *inner), draw(out, rank, *tail), alpha)
    return Adapter(modules)


adapters = st.builds(
    random_adapter,
    seed=st.integers(0, 2**32 - 1),
    rank=st.integers(1, 5),
    alpha=st.sampled_from((0.5, 1.0, 2.0, 4.0, 16.0)),
    layers=st.sets(st.sampled_from(sorted(TABLE)), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
)


def same(first: Adapter, second: Adapter) -> bool:
    """Whether layers, factors and alphas are equal."""
    return first.tensor_digest() == second.tensor_digest()
