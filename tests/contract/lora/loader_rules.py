"""How A1111 and ComfyUI find the layer of a key and what they add to it, re-stated from their sources for tests.

* A1111 `extensions-builtin/Lora/networks.py` (`convert_diffusers_name_to_compvis`, `load_network`), `network.py`
  (`calc_scale`, `detect_version`), read at 1.10.
* ComfyUI `comfy/utils.py` (`unet_to_diffusers`), `comfy/lora.py` (`model_lora_keys_unet`, `model_lora_keys_clip`),
  `comfy/weight_adapter/lora.py` (`calculate_weight`), `comfy/weight_adapter/base.py` (`weight_decompose`), read in
  November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Blocks:
    """What ComfyUI reads of a U-Net's configuration: transformers by down block, and by up block."""

    down: tuple[bool, ...]
    up: tuple[bool, ...]
    resnets: int = 2


SD15 = Blocks((True, True, True, False), (False, True, True, True))
SDXL = Blocks((False, True, True), (True, True, False))
_RESNET = {
    "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
_BASIC = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
}  # fmt: skip
_CLIP = ("mlp.fc1", "mlp.fc2", "self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj")


def _prefixes(blocks: Blocks) -> dict[str, str]:
    """diffusers' blocks → the checkpoint's (ldm, sgm), as `unet_to_diffusers` walks them."""
    found = {
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.resnets.1": "middle_block.2",
    }
    for x in range(len(blocks.down)):
        n = 1 + (blocks.resnets + 1) * x
        for i in range(blocks.resnets):
            found[f"down_blocks.{x}.resnets.{i}"] = f"input_blocks.{n}.0"
            if blocks.down[x]:
                found[f"down_blocks.{x}.attentions.{i}"] = f"input_blocks.{n}.1"
            n += 1
        found[f"down_blocks.{x}.downsamplers.0.conv"] = f"input_blocks.{n}.0.op"
    for x in range(len(blocks.up)):
        n = (blocks.resnets + 1) * x
        for i in range(blocks.resnets + 1):
            parts = 1
            found[f"up_blocks.{x}.resnets.{i}"] = f"output_blocks.{n}.0"
            if blocks.up[x]:
                found[f"up_blocks.{x}.attentions.{i}"] = f"output_blocks.{n}.1"
                parts = 2
            if i == blocks.resnets:
                found[f"up_blocks.{x}.upsamplers.0.conv"] = f"output_blocks.{n}.{parts}.conv"
            n += 1
    return found


def checkpoint_name(path: str, blocks: Blocks) -> str | None:
    """A U-Net layer's name in the original checkpoint."""
    if path in _BASIC:
        return _BASIC[path]
    if path.startswith("add_embedding.linear_"):
        return {"1": "label_emb.0.0", "2": "label_emb.0.2"}[path[-1]]
    for block, name in _prefixes(blocks).items():
        if path == block:
            return name
        if path.startswith(f"{block}."):
            rest = path.removeprefix(f"{block}.")
            return f"{name}.{_RESNET.get(rest, rest)}"
    return None


def comfy_key_map(unet_paths: Iterable[str], blocks: Blocks, text_layers: Mapping[str, int]) -> dict[str, str]:
    """Names under which ComfyUI knows a layer → that layer; `text_layers` is component → number of layers."""
    names: dict[str, str] = {}
    prefixes = _prefixes(blocks)
    for path in unet_paths:
        original = checkpoint_name(path, blocks)
        if original is None:
            continue
        names[f"lora_unet_{original.replace('.', '_')}"] = f"unet.{path}"
        if path in _BASIC or any(path == p or path.startswith(f"{p}.") for p in prefixes):
            names[f"lora_unet_{path.replace('.', '_')}"] = f"unet.{path}"
            dotted = path.replace(".to_", ".processor.to_")
            names[f"unet.{dotted.removesuffix('.0') if dotted.endswith('.to_out.0') else dotted}"] = f"unet.{path}"
    for component, count in text_layers.items():
        for layer in range(count):
            for part in _CLIP:
                target = f"{component}.text_model.encoder.layers.{layer}.{part}"
                flat = f"text_model_encoder_layers_{layer}_{part.replace('.', '_')}"
                for prefix in ("lora_te2_",) if component == "text_encoder_2" else ("lora_te_", "lora_te1_"):
                    names[prefix + flat] = target
    return names


def a1111_module(network: str, modules: set[str]) -> str | None:
    """The module of A1111's checkpoint that a key's part before the first dot means, or None."""
    key = _a1111_converted(network)
    if key in modules:
        return key
    # OpenCLIP has one projection for all three.
    if (found := re.fullmatch(r"(.*)_[qkv]_proj", key)) and found[1] in modules:
        return found[1]
    if "lora_unet" in network:
        key = network.replace("lora_unet", "diffusion_model")
    elif "lora_te1_text_model" in network:
        key = network.replace("lora_te1_text_model", "0_transformer_text_model")
        if key not in modules:
            key = network.replace("lora_te1_text_model", "transformer_text_model")
    return key if key in modules else None


def a1111_modules(unet_paths: Iterable[str], blocks: Blocks, text_layers: Mapping[str, int]) -> set[str]:
    """Names of the checkpoint's modules, as A1111 flattens them."""
    named = (checkpoint_name(path, blocks) for path in unet_paths)
    modules = {f"diffusion_model_{name.replace('.', '_')}" for name in named if name is not None}
    root = "0_transformer" if "text_encoder_2" in text_layers else "transformer"
    for layer in range(text_layers.get("text_encoder", 0)):
        modules |= {f"{root}_text_model_encoder_layers_{layer}_{part.replace('.', '_')}" for part in _CLIP}
    for layer in range(text_layers.get("text_encoder_2", 0)):
        stem = f"1_model_transformer_resblocks_{layer}"
        modules |= {f"{stem}_attn", f"{stem}_attn_out_proj", f"{stem}_mlp_c_fc", f"{stem}_mlp_c_proj"}
    return modules


def _a1111_converted(key: str) -> str:
    def resnet(kind: str, rest: str) -> str:
        return _RESNET.get(rest, rest).replace(".", "_") if kind == "resnets" else rest

    if found := re.fullmatch(r"lora_unet_conv_in(.*)", key):
        return f"diffusion_model_input_blocks_0_0{found[1]}"
    if found := re.fullmatch(r"lora_unet_conv_out(.*)", key):
        return f"diffusion_model_out_2{found[1]}"
    if found := re.fullmatch(r"lora_unet_time_embedding_linear_(\d+)(.*)", key):
        return f"diffusion_model_time_embed_{int(found[1]) * 2 - 2}{found[2]}"
    if found := re.fullmatch(r"lora_unet_down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", key):
        number, part = 1 + int(found[1]) * 3 + int(found[3]), 1 if found[2] == "attentions" else 0
        return f"diffusion_model_input_blocks_{number}_{part}_{resnet(found[2], found[4])}"
    if found := re.fullmatch(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)", key):
        part = 1 if found[1] == "attentions" else int(found[2]) * 2
        return f"diffusion_model_middle_block_{part}_{resnet(found[1], found[3])}"
    if found := re.fullmatch(r"lora_unet_up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", key):
        number, part = int(found[1]) * 3 + int(found[3]), 1 if found[2] == "attentions" else 0
        return f"diffusion_model_output_blocks_{number}_{part}_{resnet(found[2], found[4])}"
    if found := re.fullmatch(r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", key):
        return f"diffusion_model_input_blocks_{3 + int(found[1]) * 3}_0_op"
    if found := re.fullmatch(r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", key):
        return f"diffusion_model_output_blocks_{2 + int(found[1]) * 3}_{2 if int(found[1]) > 0 else 1}_conv"
    if found := re.fullmatch(r"lora_te_text_model_encoder_layers_(\d+)_(.+)", key):
        return f"transformer_text_model_encoder_layers_{found[1]}_{found[2]}"
    if found := re.fullmatch(r"lora_te2_text_model_encoder_layers_(\d+)_(.+)", key):
        rest = found[2].replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj").replace("self_attn", "attn")
        return f"1_model_transformer_resblocks_{found[1]}_{rest}"
    return key


def a1111_version(metadata: Mapping[str, str]) -> str:
    """`detect_version`: by what A1111 hides files of other families."""
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return "SDXL"
    if metadata.get("ss_v2") == "True":
        return "SD2"
    return "SD1" if metadata else "Unknown"


def added_weight(tensors: Mapping[str, Array], network: str) -> Array:
    """What both add to the weight at strength 1: up times down, flattened, by alpha / rank."""
    up, down = (np.asarray(tensors[f"{network}.lora_{part}.weight"], np.float32) for part in ("up", "down"))
    alpha = tensors.get(f"{network}.alpha")
    scale = 1.0 if alpha is None else float(alpha) / down.shape[0]
    flat = up.reshape(up.shape[0], -1) @ down.reshape(down.shape[0], -1)
    return (scale * flat).reshape(up.shape[0], *down.shape[1:])


def comfy_dora(weight: Array, change: Array, dora_scale: Array) -> Array:
    """`weight_decompose` for a scale an output: rows of `weight + change` by those of `weight` alone."""
    rows = np.linalg.norm(weight.reshape(weight.shape[0], -1), axis=1).reshape(-1, *([1] * (weight.ndim - 1)))
    return (weight + change) * (dora_scale / (rows + np.finfo(np.float32).eps))
