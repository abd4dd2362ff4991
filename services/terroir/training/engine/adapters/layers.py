"""Adapter layers in the models: PEFT puts them in, and their weights come out under canonical names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from terroir.lora.adapter import Adapter
from terroir.training.config import TrainConfig
from terroir.training.engine.adapters.canonical import adapter_of
from terroir.training.engine.adapters.start import check_fits
from terroir.training.engine.adapters.targets import UNET, Target, targets_of
from terroir.training.engine.families.interface import Family
from terroir.training.engine.randomness import derive

Role = Literal["down", "up", "magnitude"]
_NAME: Final = "default"


@dataclass(frozen=True)
class Weight:
    """One trained tensor, fp32."""

    name: str
    """`<canonical layer>.<role>`."""
    parameter: nn.Parameter
    target: Target
    role: Role


@dataclass(frozen=True)
class AdapterLayers:
    """The adapter as it is trained."""

    targets: Sequence[Target]
    weights: Sequence[Weight]
    """Of every layer, in the models' own order; those of layers with a rate of 0 take no gradient."""

    @property
    def trained(self) -> Sequence[Weight]:
        """Weights that learn."""
        return [weight for weight in self.weights if weight.target.rate]

    @property
    def alphas(self) -> Mapping[str, float]:
        """Canonical alpha by layer."""
        return {target.layer: target.canonical_alpha for target in self.targets}

    def extract(self) -> Adapter:
        """The adapter as it is now."""
        return adapter_of({weight.name: weight.parameter for weight in self.weights}, self.alphas)

    def freeze_text_encoders(self) -> None:
        """Text encoders stay as they are from now on."""
        for weight in self.weights:
            if weight.target.component != UNET:
                weight.parameter.requires_grad_(False)
                weight.parameter.grad = None


def plan(family: Family, config: TrainConfig, start: Adapter | None = None) -> tuple[Target, ...]:
    """The layers that `inject` will adapt, found without changing anything.

    Raises what `targets_of` raises, and PretrainedMismatch for a start of another rank, alpha, kind or set of layers.
    """
    targets = targets_of(config, family.unet, family.text_encoders, start)
    if start is not None:
        check_fits(start, targets, config)
    return targets


def inject(
    family: Family, targets: Sequence[Target], config: TrainConfig, start: Adapter | None = None
) -> AdapterLayers:
    """Freeze the models and add the planned layers: fresh ones that change nothing yet, or those of `start`."""
    weights: list[Weight] = []
    for component, group in groupby(targets, key=lambda target: target.component):
        model = family.unet if component == UNET else family.text_encoders[component]
        model.requires_grad_(False)
        weights += _inject_one(model, component, list(group), config)
    if start is not None:
        _fill(weights, start)
    return AdapterLayers(targets, weights)


def _inject_one(model: nn.Module, component: str, targets: list[Target], config: TrainConfig) -> list[Weight]:
    torch.manual_seed(derive(config.seed, "init", *(() if component == UNET else (component,))))
    usual = targets[0]
    other = {f"^{re.escape(t.path)}": t for t in targets if (t.rank, t.alpha) != (usual.rank, usual.alpha)}
    inject_adapter_in_model(
        LoraConfig(
            r=usual.rank,
            lora_alpha=usual.alpha,
            lora_dropout=config.lora_dropout,
            target_modules=[target.path for target in targets],
            rank_pattern={path: target.rank for path, target in other.items()},
            alpha_pattern={path: target.alpha for path, target in other.items()},
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
            init_lora_weights="gaussian",
        ),
        model,
        _NAME,
    )
    return [weight for target in targets for weight in _weights(model.get_submodule(target.path), target)]


def _weights(layer: Any, target: Target) -> list[Weight]:
    assert isinstance(layer, LoraLayer), target.layer
    tensors: dict[Role, nn.Parameter] = {"down": layer.lora_A[_NAME].weight, "up": layer.lora_B[_NAME].weight}
    if _NAME in layer.lora_magnitude_vector:
        tensors["magnitude"] = layer.lora_magnitude_vector[_NAME].weight
        # PEFT measures in the base's precision; in half of it a fresh DoRA would change the model.
        tensors["magnitude"].data = _row_lengths(layer.get_base_layer(), tensors["magnitude"].shape)
    for parameter in tensors.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(bool(target.rate))
    return [Weight(f"{target.layer}.{role}", parameter, target, role) for role, parameter in tensors.items()]


def _row_lengths(base: nn.Module, shape: torch.Size) -> Tensor:
    weight = dequantize_module_weight(base).detach().float()
    return weight.flatten(1).norm(dim=1).reshape(shape)


def _fill(weights: Sequence[Weight], start: Adapter) -> None:
    for weight in weights:
        module: Any = start.modules[weight.target.layer]  # a LoraModule of these shapes, as check_fits found
        values = torch.tensor(getattr(module, weight.role), dtype=torch.float32)
        with torch.no_grad():
            weight.parameter.copy_(values.reshape(weight.parameter.shape))
