"""Kohya-ss keys (`lora_unet_….lora_down.weight`): the one file that A1111, Forge, ComfyUI and diffusers all read.

Dots of the layer path become underscores, so reading needs the base's own layer names. Alpha is a 0-d tensor beside the
factors; absent means alpha = r. A file with alpha tensors must not carry `lora_adapter_metadata`: diffusers refuses
both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter, Array
from terroir.lora.block_names import attention_levels_up, original_name
from terroir.lora.errors import UnsupportedAdapter
from terroir.lora.formats.headers import network_entries
from terroir.lora.formats.kinds import kind_of, refuse
from terroir.lora.formats.reading import LYCORIS_PARTS, Ignored, Reading
from terroir.lora.key_table import KeyTable

PREFIXES: Final = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
_PARTS: Final[Mapping[str, Literal["down", "up", "mid", "magnitude"]]] = {
    "lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid", "dora_scale": "magnitude",
}  # fmt: skip
_SDXL_UP_ATTENTION: Final = frozenset({0, 1})
_READ_PREFIXES: Final = {
    "unet": ("lora_unet_",), "text_encoder": ("lora_te_", "lora_te1_"), "text_encoder_2": ("lora_te2_",),
}  # fmt: skip


def original_names(layers: Iterable[str], up_attention: frozenset[int]) -> dict[str, str]:
    """U-Net layers in the original's block names, flattened: `input_blocks_4_1_proj_in`."""
    paths = {layer.removeprefix("unet."): layer for layer in layers if layer.startswith("unet.")}
    named = {layer: original_name(path, attention_levels_up=up_attention) for path, layer in paths.items()}
    return {layer: name.replace(".", "_") for layer, name in named.items() if name is not None}


def read(tensors: Mapping[str, Array], table: KeyTable) -> Reading:
    """Sort tensors by layer; raises UnsupportedAdapter for kinds other than LoRA, LoCon, DoRA, LoHa and LoKr.

    A layer is read whole or the file is refused: a tensor beside known factors that is not understood may change what
    they mean.
    """
    names = _names(table)
    reading = Reading()
    for key, tensor in sorted(tensors.items()):
        stem, _, part = key.partition(".")
        layer = names.get(stem)
        if stem == "bundle_emb":
            reading.ignored.append(Ignored(key, "bundled textual-inversion embeddings are not applied"))
        elif layer is None:
            if stem.startswith(PREFIXES) and kind_of(part) and part not in LYCORIS_PARTS:
                raise refuse(key, part)
            reading.unknown.append(Ignored(key, _why_unknown(stem)))
        elif part in _PARTS:
            reading.put(layer, _PARTS[part], key, tensor)
        elif part in LYCORIS_PARTS:
            reading.put_lycoris(layer, part, key, tensor)
        elif part == "alpha":
            reading.set_alpha(layer, key, _number(key, tensor))
        elif part == "scale":
            reading.of(layer).scale = _number(key, tensor)
        else:
            raise refuse(key, part)
    return reading


def _number(key: str, tensor: Array) -> float:
    if tensor.size != 1:
        raise UnsupportedAdapter(
            f"{key} has the shape {list(tensor.shape)}; only strengths of one value are read: save the file with usual "
            "alphas",
            key=key,
            reason="ADAPTER_STRENGTH_UNKNOWN",
        )
    return float(tensor.reshape(()))


@dataclass(frozen=True)
class KohyaFile:
    """A written file."""

    data: bytes
    body_digest: str
    """SHA-256 (hex) of all bytes behind the header."""


def to_kohya(adapter: Adapter, metadata: Mapping[str, str], dtype: str | None = None, *, sdxl: bool = False) -> bytes:
    """The bytes of `kohya_file`."""
    return kohya_file(adapter, metadata, dtype, sdxl=sdxl).data


def kohya_file(
    adapter: Adapter, metadata: Mapping[str, str], dtype: str | None = None, *, sdxl: bool = False
) -> KohyaFile:
    """Write one file: factors of every kind, alphas, DoRA scales, and `metadata` with network and hash headers added.

    `dtype` as in `safetensors_bytes.encode`. Equal input gives equal bytes. `sdxl` writes the original block names and
    `te1` / `te2`, as sd-scripts does for SDXL; never both spellings: diffusers drops one then. A DoRA comes out right
    in LyCORIS; ComfyUI divides by the length of the unchanged rows, A1111 norms columns, diffusers drops the scales.
    """
    tensors: dict[str, Array] = {}
    originals = original_names(adapter.modules, _SDXL_UP_ATTENTION) if sdxl else {}
    prefixes = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_" if sdxl else "lora_te_",
        "text_encoder_2": "lora_te2_",
    }
    for layer, module in adapter.modules.items():
        component, _, path = layer.partition(".")
        stem = prefixes[component] + originals.get(layer, path.replace(".", "_"))
        tensors[f"{stem}.alpha"] = np.asarray(module.alpha, dtype=np.float32)
        for part, tensor in module.tensors.items():
            tensors[f"{stem}.{part}"] = tensor
    body = safetensors_bytes.encode(tensors, dtype)
    digest = hashlib.sha256(body.data).hexdigest()
    alphas = {module.alpha for module in adapter.modules.values()}
    headers = {
        **network_entries(adapter.rank, alphas, kinds=adapter.kinds, dora=adapter.has_magnitudes),
        **metadata,
        "sshs_model_hash": digest,
        **({"modelspec.hash_sha256": f"0x{digest}"} if "modelspec.sai_model_spec" in metadata else {}),
    }
    return KohyaFile(safetensors_bytes.assemble(body, headers), digest)


def _names(table: KeyTable) -> dict[str, str]:
    """Layers by every kohya name that means them: diffusers' and the original's block names, `te` and `te1`."""
    names: dict[str, str] = {}
    up_attention = attention_levels_up([layer.removeprefix("unet.") for layer in table])
    for layer, flat in original_names(table, up_attention).items():
        names[f"lora_unet_{flat}"] = layer
    for layer in table:
        component, _, path = layer.partition(".")
        flat = path.replace(".", "_")
        for prefix in _READ_PREFIXES[component]:
            names[f"{prefix}{flat}"] = layer
    return names


def _why_unknown(stem: str) -> str:
    if stem.startswith("lora_te2_"):
        return "no such layer in a second text encoder of the base"
    return "no such layer in the base" if stem.startswith(PREFIXES) else "not a LoRA key"
