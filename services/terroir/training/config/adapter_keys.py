"""Keys of the adapter's own form: which layers, what rank, which variant of LoRA."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from terroir.training.config.limits import MAX_RANK, MODULE_ENDING, Section


class TargetPreset(StrEnum):
    """Layers of the denoiser that get an adapter."""

    ATTENTION = "attention"
    ATTENTION_FF = "attention-ff"
    ALL_LINEAR_CONV = "all-linear-conv"


class BaseQuantization(StrEnum):
    """How the frozen base's weights are held while an adapter trains on them."""

    NONE = "none"
    INT8 = "int8"
    NF4 = "nf4"


ModuleSuffix = Annotated[str, StringConstraints(pattern=MODULE_ENDING, max_length=120)]


def _preset_alone(value: Any) -> Any:
    """A list of one preset is that preset: messages have lists only."""
    alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else None
    return alone if alone in tuple(TargetPreset) else value


class AdapterKeys(Section):
    """The adapter."""

    lora_rank: int = Field(16, ge=1, le=MAX_RANK, description="Rank of every adapter layer.")
    lora_alpha: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="Strength: the adapter's output is scaled by alpha / rank. Unset means the rank.",
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Share of an adapter layer's inputs dropped in training.")
    target_modules: Annotated[
        TargetPreset | Annotated[tuple[ModuleSuffix, ...], Field(min_length=1, max_length=64)],
        BeforeValidator(_preset_alone),
    ] = Field(
        TargetPreset.ATTENTION,
        description="Layers to adapt: `attention` (q, k, v, out), `attention-ff` (also feed-forward and projections), "
        "`all-linear-conv` (also the residual blocks), or a list of module name endings.",
    )
    conv_rank: int | None = Field(
        None,
        ge=1,
        le=MAX_RANK,
        description="LoCon: rank of convolutions larger than 1 × 1, which are adapted beside target_modules. "
        "Unset: only those that target_modules names, with lora_rank.",
    )
    conv_alpha: float | None = Field(
        None, gt=0, le=4096, description="Strength of those convolutions. Unset means conv_rank."
    )
    use_rslora: bool = Field(
        False, description="rsLoRA (Kalajdzievski, arXiv 2312.03732): scale by alpha / √rank instead of alpha / rank."
    )
    use_dora: bool = Field(
        False,
        description="DoRA (Liu et al., arXiv 2402.09353): learn the length of every output row as well.",
    )
    base_quantization: BaseQuantization = Field(
        BaseQuantization.NONE,
        description="QLoRA (Dettmers et al., arXiv 2305.14314): hold the frozen denoiser's linear layers in 8 (`int8`) "
        "or 4 bits (`nf4`) while training.",
    )
