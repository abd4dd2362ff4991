"""Kohya-ss keys (`lora_unet_….lora_down.weight`): the one file that A1111, Forge, ComfyUI and diffusers all read.

Dots of the layer path become underscores, so reading needs the base's own layer names. Alpha is a 0-d tensor beside the
factors; absent means alpha = r. A file with alpha tensors must not carry `lora_adapter_metadata`: diffusers refuses
both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np

from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter, Array
from terroir.lora.errors import UnsupportedAdapter
from terroir.lora.formats.assembling import Ignored, Reading
from terroir.lora.key_table import KeyTable

PREFIXES: Final = ("lora_unet_", "lora_te_", "lora_te1_")
_WRITTEN_PREFIX: Final = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
_OTHER_KINDS: Final = {
    "dora_scale": "DoRA", "hada_": "LoHa", "lokr_": "LoKr", "lora_mid": "LoCon with Tucker decomposition",
    "oft_": "OFT", "diff": "full difference", "w_norm": "norm training", "on_input": "(IA)³",
}  # fmt: skip


def read(tensors: Mapping[str, Array], table: KeyTable) -> Reading:
    """Sort tensors by layer; raises UnsupportedAdapter for kinds other than LoRA and LoCon."""
    names = _names(table)
    reading = Reading()
    for key, tensor in sorted(tensors.items()):
        stem, _, part = key.partition(".")
        _refuse_other_kinds(key, part)
        layer = names.get(stem)
        if layer is None:
            reading.ignored.append(Ignored(key, _why_unknown(stem)))
        elif part == "lora_down.weight":
            reading.put(layer, "down", key, tensor)
        elif part == "lora_up.weight":
            reading.put(layer, "up", key, tensor)
        elif part == "alpha" and tensor.size == 1:
            reading.of(layer).alpha = float(tensor.reshape(()))
        elif part in ("alpha", "scale"):
            raise UnsupportedAdapter(
                f"{key} of shape {list(tensor.shape)} sets an unknown strength; only alphas of one value are read",
                key=key,
                reason="ADAPTER_STRENGTH_UNKNOWN",
            )
        else:
            reading.ignored.append(Ignored(key, f"{part} is no part of a LoRA layer"))
    return reading


def to_kohya(adapter: Adapter, metadata: Mapping[str, str], dtype: str | None = None) -> bytes:
    """Write one file: factors, alphas, and `metadata` with network and hash headers added.

    `dtype` None takes float16 if that loses nothing, else float32. Equal input gives equal bytes.
    """
    tensors: dict[str, Array] = {}
    for layer, module in adapter.modules.items():
        component, _, path = layer.partition(".")
        stem = _WRITTEN_PREFIX[component] + path.replace(".", "_")
        tensors[f"{stem}.lora_down.weight"] = module.down
        tensors[f"{stem}.lora_up.weight"] = module.up
        tensors[f"{stem}.alpha"] = np.asarray(module.alpha, dtype=np.float32)
    chosen = dtype or ("float16" if _survives_half(tensors) else "float32")
    alphas = {module.alpha for module in adapter.modules.values()}
    headers = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(adapter.rank),
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
        **metadata,
    }
    plain = safetensors_bytes.write(tensors, headers, chosen)
    body = plain[8 + int.from_bytes(plain[:8], "little") :]
    return safetensors_bytes.write(tensors, {**headers, "sshs_model_hash": hashlib.sha256(body).hexdigest()}, chosen)


def _names(table: KeyTable) -> dict[str, str]:
    names: dict[str, str] = {}
    for layer in table:
        component, _, path = layer.partition(".")
        flat = path.replace(".", "_")
        if component == "unet":
            names[f"lora_unet_{flat}"] = layer
        else:
            names[f"lora_te_{flat}"] = names[f"lora_te1_{flat}"] = layer
    return names


def _refuse_other_kinds(key: str, part: str) -> None:
    for mark, kind in _OTHER_KINDS.items():
        if part.startswith(mark):
            raise UnsupportedAdapter(
                f"{key}: this is a {kind} adapter; only LoRA and LoCon factors are supported: convert it to LoRA first",
                key=key,
            )


def _why_unknown(stem: str) -> str:
    if stem.startswith(("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_")):
        return "named in the original (sgm) block names, which this family does not use"
    if stem.startswith("lora_te2_"):
        return "for a second text encoder, which the base has not"
    return "no such layer in the base" if stem.startswith(PREFIXES) else "not a LoRA key"


def _survives_half(tensors: Mapping[str, Array]) -> bool:
    with np.errstate(over="ignore"):
        return all(np.array_equal(t.astype(np.float16).astype(np.float32), t) for t in tensors.values())
