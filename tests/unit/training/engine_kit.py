"""What the tests of the model side share: loaded bases, adapter layers with values in them, one forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from training_kit import SMALL

from terroir.lora.adapter import Adapter
from terroir.training.config import TrainConfig
from terroir.training.engine.adapters.layers import AdapterLayers, inject, plan
from terroir.training.engine.families.interface import Family, TextStates
from terroir.training.engine.families.loading import load_family

CAPTIONS = ["a red house", "a blue tower by the river"]


def config(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({**SMALL, **keys})


def load(folder: Path, **keys: Any) -> Family:
    return load_family(folder, config(**keys), "cpu")


def adapted(folder: Path, start: Adapter | None = None, **keys: Any) -> tuple[Family, AdapterLayers]:
    """A base with the layers of a configuration."""
    family, settings = load(folder, **keys), config(**keys)
    return family, inject(family, plan(family, settings, start), settings, start)


def filled(layers: AdapterLayers, seed: int = 0) -> AdapterLayers:
    """Every factor at random, every magnitude moved by up to a third: as if it was trained."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in layers.weights:
            value = weight.parameter
            if weight.role == "magnitude":
                value *= 1 + (torch.rand(value.shape, generator=source) - 0.5) * 2 / 3
            else:
                value.copy_(torch.randn(value.shape, generator=source) * 0.2)
    return layers


def merge(family: Family, adapter: Adapter) -> Family:
    """Add the adapter's change to the base's own weights."""
    models = {"unet": family.unet, **family.text_encoders}
    for layer, module in adapter.modules.items():
        component, _, path = layer.partition(".")
        names = dict(models[component].named_modules())
        weight: Tensor = (names.get(path) or names[path.removeprefix("text_model.")]).weight
        with torch.no_grad():
            weight += torch.from_numpy(module.change_of(weight.numpy()))
    return family


def texts(family: Family) -> TextStates:
    return family.encode_texts(family.tokenize(CAPTIONS))


def forward(family: Family, side: int = 8) -> Tensor:
    """The denoiser's answer to fixed noise and captions, both through the family's own text encoders."""
    source = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, family.unet.config.in_channels, side, side, generator=source)
    geometry = torch.tensor([[64.0, 48, 0, 8, 32, 32], [32, 32, 0, 0, 32, 32]])
    return family.denoise(noisy, torch.tensor([10, 700]), texts(family), geometry)
