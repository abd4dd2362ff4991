"""Adapters of other kinds, told by the names of their tensors, so that none is half-read as a LoRA."""

from __future__ import annotations

from typing import Final

from terroir.lora.errors import UnsupportedAdapter

_MARKS: Final = {
    "hada_": "LoHa", "lokr_": "LoKr", "glora": "GLoRA", "a1.": "GLoRA", "a2.": "GLoRA", "b1.": "GLoRA", "b2.": "GLoRA",
    "oft_": "OFT", "boft_": "BOFT", "diff": "full-difference", "w_norm": "norm", "b_norm": "norm", "on_input": "(IA)³",
    "weight": "(IA)³", "ia3_l": "(IA)³", "vera_lambda_": "VeRA", "lora_embedding_": "token-embedding LoRA",
    "reshape_weight": "shape-changing LoRA", "bias": "bias-changing", "lora_bias": "bias-changing",
    "lora_up.bias": "bias-changing", "lora_down.bias": "bias-changing", "lora_B.bias": "bias-changing",
    "lora_A.bias": "bias-changing", "scalar": "LyCORIS use_scalar",
}  # fmt: skip
"""Beginning of what follows the layer in a key → kind. LyCORIS, PEFT and ComfyUI name them so."""


def kind_of(part: str) -> str:
    """Kind of the adapter that has a tensor `part` beside a layer; empty if it is none that is known."""
    return next((kind for mark, kind in _MARKS.items() if part.startswith(mark)), "")


def refuse(key: str, part: str) -> UnsupportedAdapter:
    """What to raise for a tensor that changes a known layer in a way that no module of ours can hold."""
    kind = kind_of(part)
    what = f"this is a {kind} adapter" if kind else f"{part[:80]!r} is no part of a LoRA layer"
    return UnsupportedAdapter(
        f"{key}: {what}; LoRA, LoCon and DoRA are read, LoHa and LoKr under kohya's keys, and nothing is read by "
        "halves: turn it into a LoRA first (PEFT convert_to_lora, LyCORIS extract_locon)",
        key=key,
    )
