"""The layers of a base that an adapter may change, from tensor names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KeyTable = Mapping[str, tuple[int, ...]]
"""`<component>.<layer path>` → weight shape, `[out, in]` or `[out, in, kh, kw]`."""

_TEXT_PREFIX: Final = "text_model."
_BESIDE_TEXT_MODEL: Final = "text_projection"
"""Layer of SDXL's second text encoder that is no part of its `text_model`."""


def key_table_of(
    unet: Mapping[str, tuple[int, ...]],
    text_encoder: Mapping[str, tuple[int, ...]],
    text_encoder_2: Mapping[str, tuple[int, ...]] | None = None,
) -> KeyTable:
    """Linear and convolution layers among the tensors of a denoiser and its text encoders (SDXL has two).

    transformers 5 dropped `text_model.` from CLIPTextModel's names, published adapters all carry it: it is put back.
    """
    table = {f"unet.{path}": shape for path, shape in _layers(unet).items()}
    for component, tensors in (("text_encoder", text_encoder), ("text_encoder_2", text_encoder_2 or {})):
        for path, shape in _layers(tensors).items():
            whole = path.startswith(_TEXT_PREFIX) or path == _BESIDE_TEXT_MODEL
            table[f"{component}.{path if whole else _TEXT_PREFIX + path}"] = shape
    return table


def _layers(tensors: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {
        name.removesuffix(".weight"): tuple(shape)
        for name, shape in tensors.items()
        if name.endswith(".weight") and len(shape) in (2, 4) and "embeddings." not in name
    }
