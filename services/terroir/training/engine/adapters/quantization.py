"""A frozen base held in 8 or 4 bits by bitsandbytes (QLoRA: Dettmers et al., arXiv 2305.14314), on a GPU."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from terroir.training.config import BaseQuantization
from terroir.training.errors import BaseQuantizationUnavailable


def ensure_quantizable(kind: BaseQuantization, device: str) -> None:
    """Raise BaseQuantizationUnavailable if this machine cannot hold a base so."""
    if kind is BaseQuantization.NONE:
        return
    if not device.startswith("cuda"):
        raise BaseQuantizationUnavailable(
            f"base_quantization {kind} needs a GPU, this run trains on {device}; set it to none, or gpus to 1",
            field="base_quantization",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BaseQuantizationUnavailable(
            f"base_quantization {kind} needs bitsandbytes, which is not installed here (pip install bitsandbytes in "
            "the trainer's image); set it to none, or mixed_precision to bf16 with gradient_checkpointing, to save "
            "memory without it",
            field="base_quantization",
        )


def quantize_(model: Any, kind: BaseQuantization, compute: torch.dtype) -> None:
    """Replace every linear layer of a denoiser by one in `kind`, in place; moving it to a device rounds it.

    `compute` is what products are taken in. PEFT recognises such layers, and leaves convolutions as they are.
    """
    if kind is BaseQuantization.NONE:
        return
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, _quantized(module, kind, compute))
    # What PEFT asks for before it looks at the layers.
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = kind is BaseQuantization.INT8, kind is BaseQuantization.NF4


def _quantized(linear: nn.Linear, kind: BaseQuantization, compute: torch.dtype) -> nn.Module:
    import bitsandbytes as bnb  # type: ignore[import-not-found,unused-ignore]  # an extra of GPU images

    size, bias = (linear.in_features, linear.out_features), linear.bias is not None
    replacement: Any
    if kind is BaseQuantization.INT8:
        replacement = bnb.nn.Linear8bitLt(*size, bias, has_fp16_weights=False)
        replacement.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
    else:
        replacement = bnb.nn.Linear4bit(*size, bias, compute_dtype=compute, quant_type="nf4")
        replacement.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
    if bias:
        replacement.bias = nn.Parameter(linear.bias.data, requires_grad=False)
    module: nn.Module = replacement.train(linear.training)
    return module
