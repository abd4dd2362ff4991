"""Which layers of a base get an adapter, of what rank and strength, and how fast each learns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import nn

from terroir.lora.adapter import Adapter
from terroir.training.config import TargetPreset, TrainConfig
from terroir.training.errors import ConfigInvalid, NothingToTrain

UNET: Final = "unet"
_TEXT_MODEL: Final = "text_model."
_ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD: Final = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_RESIDUAL: Final = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
_PRESETS: Final[Mapping[TargetPreset, tuple[str, ...]]] = {
    TargetPreset.ATTENTION: _ATTENTION,
    TargetPreset.ATTENTION_FF: (*_ATTENTION, *_FEED_FORWARD),
    TargetPreset.ALL_LINEAR_CONV: (*_ATTENTION, *_FEED_FORWARD, *_RESIDUAL),
}
_TEXT_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "out_proj")
_TEXT_ALL: Final = (*_TEXT_ATTENTION, "fc1", "fc2")
_BLOCKS: Final = ("down_blocks", "mid_block", "up_blocks")


@dataclass(frozen=True)
class Target:
    """One layer that gets an adapter."""

    component: str
    """`unet`, `text_encoder` or `text_encoder_2`."""
    path: str
    """Of the module within its component."""
    rank: int
    alpha: float
    """As the configuration has it; with rsLoRA the scale is alpha / √rank."""
    rank_stabilised: bool = False
    rate: float = 1.0
    """Multiplier of its component's learning rate; 0 for a layer that keeps the values it starts from."""

    @property
    def layer(self) -> str:
        """Its canonical name, `<component>.<layer path>`.

        transformers 5 dropped `text_model.` from CLIPTextModel's names, published adapters all carry it.
        """
        whole = self.component == UNET or self.path.startswith(_TEXT_MODEL)
        return f"{self.component}.{self.path if whole else _TEXT_MODEL + self.path}"

    @property
    def canonical_alpha(self) -> float:
        """Alpha such that the scale is alpha / rank, as files hold it: in 32 bits."""
        return float(np.float32(self.alpha * math.sqrt(self.rank) if self.rank_stabilised else self.alpha))


def targets_of(
    config: TrainConfig, unet: nn.Module, text_encoders: Mapping[str, nn.Module], start: Adapter | None = None
) -> tuple[Target, ...]:
    """Every layer that gets an adapter, in the models' own order.

    A block whose multiplier is 0 gets none, unless `start` has values for it, which then stay as they are. Raises
    NothingToTrain (NO_TARGET_MODULES) if no layer is left, ConfigInvalid (BLOCK_UNKNOWN) for a block that the denoiser
    lacks.
    """
    kept = frozenset() if start is None else frozenset(start.modules)
    found = [*_denoiser_targets(config, unet)]
    if config.text_encoder_lr is not None:
        found += [target for name, encoder in text_encoders.items() for target in _text_targets(config, name, encoder)]
    chosen = tuple(target for target in found if target.rate or target.layer in kept)
    if not any(target.rate and target.component == UNET for target in chosen):
        raise _no_targets(config, frozen=bool(found))
    return chosen


def _denoiser_targets(config: TrainConfig, unet: nn.Module) -> Iterator[Target]:
    endings = _endings(config)
    rates = BlockRates(config.block_lr_weights, unet)
    for path, module in _adaptable(unet):
        large = isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
        if large and config.conv_rank is not None and path.startswith(_BLOCKS):
            alpha = float(config.conv_rank) if config.conv_alpha is None else config.conv_alpha
            yield Target(UNET, path, config.conv_rank, alpha, config.use_rslora, rates.of(path))
        elif _ends(path, endings):
            yield Target(UNET, path, config.lora_rank, config.alpha, config.use_rslora, rates.of(path))


def _text_targets(config: TrainConfig, component: str, encoder: nn.Module) -> Iterator[Target]:
    """Presets mean CLIP's counterparts; a list its own names, or attention if it holds no name of theirs."""
    preset = config.target_modules
    endings: tuple[str, ...]
    if isinstance(preset, TargetPreset):
        endings = _TEXT_ATTENTION if preset is TargetPreset.ATTENTION else _TEXT_ALL
    else:
        named = tuple(name for name in preset if any(_ends(path, (name,)) for path, _ in _adaptable(encoder)))
        endings = named or _TEXT_ATTENTION
    for path, _ in _adaptable(encoder):
        if _ends(path, endings):
            yield Target(component, path, config.lora_rank, config.alpha, config.use_rslora)


class BlockRates:
    """Multipliers by block: the longest name that fits a layer decides, others have 1."""

    def __init__(self, rates: Mapping[str, float], unet: nn.Module) -> None:
        """Raises ConfigInvalid (BLOCK_UNKNOWN) listing the blocks that there are."""
        known = tuple(_block_names(unet))
        for name in rates:
            if name not in known:
                raise ConfigInvalid(
                    f"block_lr_weights names {name}, which the denoiser lacks; it has {', '.join(known)}",
                    reason="BLOCK_UNKNOWN",
                    field="block_lr_weights",
                )
        self._rates = sorted(rates.items(), key=lambda item: -len(item[0]))

    def of(self, path: str) -> float:
        """Multiplier of one layer."""
        return next((rate for name, rate in self._rates if path == name or path.startswith(f"{name}.")), 1.0)


def _block_names(unet: nn.Module) -> Iterator[str]:
    for name, child in unet.named_children():
        if any(True for _ in _adaptable(child)) or isinstance(child, nn.Linear | nn.Conv2d):
            yield name
        if isinstance(child, nn.ModuleList):
            yield from (f"{name}.{index}" for index in range(len(child)))


def _adaptable(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((path, m) for path, m in root.named_modules() if path and isinstance(m, nn.Linear | nn.Conv2d))


def _ends(path: str, endings: Iterable[str]) -> bool:
    return any(path == ending or path.endswith(f".{ending}") for ending in endings)


def _endings(config: TrainConfig) -> tuple[str, ...]:
    targets = config.target_modules
    return _PRESETS[targets] if isinstance(targets, TargetPreset) else targets


def _no_targets(config: TrainConfig, *, frozen: bool) -> NothingToTrain:
    if frozen:
        return NothingToTrain(
            "block_lr_weights freezes every layer of the denoiser that target_modules names (give a block more than 0)",
            reason="NO_TARGET_MODULES",
            field="block_lr_weights",
        )
    return NothingToTrain(
        f"target_modules {', '.join(_endings(config))} match no layer of the denoiser (use attention, attention-ff, "
        "all-linear-conv or names such as to_q)",
        reason="NO_TARGET_MODULES",
        field="target_modules",
    )
