"""Two spellings of a Stable Diffusion U-Net's layers: diffusers' and the original's (sgm, ldm).

`down_blocks.1.attentions.0.proj_in` of diffusers is `input_blocks.4.1.proj_in` in the original. The rule follows from
the architecture, two residual layers a level, and holds for SD 1.x, 2.x and SDXL alike; kohya files of SDXL use the
original.
"""

from __future__ import annotations

import re
from typing import Final

_LAYERS_A_LEVEL: Final = 2
_RESNET_PARTS: Final = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_FIXED: Final = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_MID: Final = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}
_BLOCK: Final = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_SAMPLER: Final = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
_MID_BLOCK: Final = re.compile(r"mid_block\.((?:resnets|attentions)\.\d)\.(.+)")


def original_name(path: str, *, attention_levels_up: frozenset[int] = frozenset()) -> str | None:
    """The original's path of a diffusers path, or None for a layer that it has not.

    `attention_levels_up` are the up blocks with attention: there the upsampler is the third part of its block, else the
    second.
    """
    if path in _FIXED:
        return _FIXED[path]
    if found := _MID_BLOCK.fullmatch(path):
        block = _MID.get(found[1])
        return None if block is None else f"{block}.{_inner(found[1], found[2])}"
    if found := _SAMPLER.fullmatch(path):
        level = int(found[2])
        if found[1] == "down":
            return f"input_blocks.{(_LAYERS_A_LEVEL + 1) * (level + 1)}.0.op"
        part = 2 if level in attention_levels_up else 1
        return f"output_blocks.{(_LAYERS_A_LEVEL + 1) * level + _LAYERS_A_LEVEL}.{part}.conv"
    if found := _BLOCK.fullmatch(path):
        side, level, kind, layer = found[1], int(found[2]), found[3], int(found[4])
        number = (_LAYERS_A_LEVEL + 1) * level + layer + (1 if side == "down" else 0)
        block = "input_blocks" if side == "down" else "output_blocks"
        return f"{block}.{number}.{0 if kind == 'resnets' else 1}.{_inner(kind, found[5])}"
    return None


def attention_levels_up(paths: list[str]) -> frozenset[int]:
    """Numbers of the up blocks that have attention."""
    found = (_BLOCK.fullmatch(path) for path in paths)
    return frozenset(int(each[2]) for each in found if each and each[1] == "up" and each[3] == "attentions")


def _inner(kind: str, rest: str) -> str:
    return _RESNET_PARTS.get(rest, rest) if kind.startswith("resnets") else rest
