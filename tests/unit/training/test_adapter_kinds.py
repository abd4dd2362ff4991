"""Every kind of adapter: which layers it has, and that what is trained is what its file says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import adapted, config, filled, forward, load, merge

from terroir.lora.base_folder import read_base_folder
from terroir.training.engine.adapters.layers import AdapterLayers, plan
from terroir.training.engine.optimizers import build_optimizer, set_rates
from terroir.training.engine.schedule import Rates
from terroir.training.errors import ConfigInvalid, NothingToTrain

KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora_alpha": 3},
    "every layer": {"target_modules": "all-linear-conv", "lora_alpha": 1},
    "LoCon": {"conv_rank": 3, "conv_alpha": 2, "target_modules": "attention-ff"},
    "rsLoRA": {"use_rslora": True, "lora_rank": 3, "lora_alpha": 2},
    "DoRA": {"use_dora": True, "target_modules": "attention-ff"},
    "all at once": {"use_dora": True, "use_rslora": True, "conv_rank": 2, "lora_rank": 3, "lora_alpha": 5},
    "with text encoders": {"text_encoder_lr": 1e-4, "lora_alpha": 3, "target_modules": "attention-ff"},
    "all at once, with text encoders": {
        "text_encoder_lr": 1e-4, "use_dora": True, "use_rslora": True, "conv_rank": 2, "target_modules": "attention-ff",
    },
}  # fmt: skip


@pytest.mark.parametrize("base", ["sd_dir", "sdxl_dir"])
@pytest.mark.parametrize("keys", KINDS.values(), ids=KINDS)
def test_the_trained_model_is_the_base_plus_the_adapter(
    base: str, keys: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """PEFT's forward pass with trained layers equals the base with the canonical adapter merged into its weights."""
    folder: Path = request.getfixturevalue(base)
    family, layers = adapted(folder, **keys)
    filled(layers)
    plain = load(folder, **keys)
    with torch.no_grad():
        trained, untouched = forward(family), forward(plain)
        merged = forward(merge(plain, layers.extract()))
    assert torch.allclose(trained, merged, atol=1e-5, rtol=1e-4)
    assert (trained - untouched).abs().max() > 1e-2, "it changes what is drawn"


@pytest.mark.parametrize("keys", KINDS.values(), ids=KINDS)
def test_fresh_layers_change_nothing_and_are_layers_of_the_base(sdxl_dir: Path, keys: dict[str, Any]) -> None:
    family, layers = adapted(sdxl_dir, **keys)
    with torch.no_grad():
        assert torch.allclose(forward(family), forward(load(sdxl_dir, **keys)), atol=1e-6)
    table = read_base_folder(sdxl_dir).layers
    for layer, module in layers.extract().modules.items():
        assert module.delta().shape == table[layer] and not module.delta().any()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_fresh_dora_on_a_base_in_half_precision_has_exact_lengths(sd_dir: Path, precision: str) -> None:
    """PEFT measures the rows in the base's own precision, which would change the model by 0.4 % before any step."""
    family, layers = adapted(sd_dir, mixed_precision=precision, use_dora=True, conv_rank=2)
    half = dict(family.unet.named_parameters())
    for layer, module in layers.extract().modules.items():
        weight = half[f"{layer.removeprefix('unet.')}.base_layer.weight"].detach().double().flatten(1)
        assert module.magnitude is not None
        assert np.allclose(module.magnitude, weight.norm(dim=1).numpy(), rtol=1e-6)
    assert {weight.parameter.dtype for weight in layers.weights} == {torch.float32}


def ranks(layers: AdapterLayers) -> dict[str, tuple[int, float]]:
    return {layer: (module.rank, module.alpha) for layer, module in layers.extract().modules.items()}


def test_conv_rank_is_that_of_large_convolutions_alone(sd_dir: Path) -> None:
    _, layers = adapted(sd_dir, conv_rank=3, conv_alpha=2, lora_rank=5, target_modules="all-linear-conv")
    shapes = {layer: module.down.shape for layer, module in layers.extract().modules.items()}
    for layer, found in ranks(layers).items():
        large = len(shapes[layer]) == 4 and max(shapes[layer][2:]) > 1
        assert found == ((3, 2.0) if large else (5, 5.0)), layer
    assert any(layer.endswith("downsamplers.0.conv") for layer in shapes)
    assert not any(layer.startswith(("unet.conv_in", "unet.conv_out")) for layer in shapes)


def test_conv_rank_adds_convolutions_to_any_target_modules(sd_dir: Path) -> None:
    plain = set(ranks(adapted(sd_dir)[1]))
    with_convolutions = set(ranks(adapted(sd_dir, conv_rank=2)[1]))
    assert plain < with_convolutions
    assert {layer.rpartition(".")[2] for layer in with_convolutions - plain} == {"conv1", "conv2", "conv"}
    assert {alpha for layer, (_, alpha) in ranks(adapted(sd_dir, conv_rank=4)[1]).items() if "conv" in layer} == {4.0}


def test_rslora_is_written_with_an_alpha_that_scales_as_it_does(sd_dir: Path) -> None:
    found = ranks(adapted(sd_dir, use_rslora=True, lora_rank=9, lora_alpha=4)[1])
    assert {alpha for _, alpha in found.values()} == {float(np.float32(4 * math.sqrt(9)))}


@pytest.mark.parametrize(
    ("targets", "endings"),
    [
        ("attention", {"q_proj", "k_proj", "v_proj", "out_proj"}),
        ("attention-ff", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        (["to_q", "fc1"], {"fc1"}),
        (["to_q"], {"q_proj", "k_proj", "v_proj", "out_proj"}),
    ],
    ids=["attention", "attention-ff", "names of both", "names of the denoiser"],
)
def test_text_encoders_get_the_counterparts_of_the_denoisers_layers(
    sdxl_dir: Path, targets: Any, endings: set[str]
) -> None:
    found = ranks(adapted(sdxl_dir, text_encoder_lr=1e-4, target_modules=targets)[1])
    for component in ("text_encoder.", "text_encoder_2."):
        layers = [layer for layer in found if layer.startswith(component)]
        assert {layer.rpartition(".")[2] for layer in layers} == endings
        assert all(layer.removeprefix(component).startswith("text_model.encoder.layers.") for layer in layers)
    assert not any(layer.startswith("text") for layer in ranks(adapted(sdxl_dir, target_modules=targets)[1]))


def test_training_text_encoders_leaves_the_denoisers_first_values_alone(sd_dir: Path) -> None:
    alone, both = (adapted(sd_dir, **keys)[1].extract().modules for keys in ({}, {"text_encoder_lr": 1e-4}))
    assert all(np.array_equal(module.down, both[layer].down) for layer, module in alone.items())


BLOCKS = {"down_blocks": 0.5, "down_blocks.1": 2.0, "mid_block": 0.0}


def test_the_longest_block_name_that_fits_decides_a_layers_rate(sdxl_dir: Path) -> None:
    settings = config(block_lr_weights=BLOCKS, target_modules="all-linear-conv")
    rates = {target.path: target.rate for target in plan(load(sdxl_dir), settings)}
    for path, rate in rates.items():
        expected = 2.0 if path.startswith("down_blocks.1.") else 0.5 if path.startswith("down_blocks.") else 1.0
        assert rate == expected, path
    assert {path.split(".")[0] for path in rates} == {"down_blocks", "up_blocks"}, "frozen blocks get no layers"


def test_an_unknown_block_is_answered_with_those_that_there_are(sd_dir: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"down_blocks\.7.*down_blocks\.0, down_blocks\.1.*mid_block") as error:
        plan(load(sd_dir), config(block_lr_weights={"down_blocks.7": 1}))
    assert (error.value.reason, error.value.field) == ("BLOCK_UNKNOWN", "block_lr_weights")


def test_a_run_with_every_block_frozen_has_nothing_to_train(sd_dir: Path) -> None:
    frozen = dict.fromkeys(("down_blocks", "mid_block", "up_blocks"), 0)
    with pytest.raises(NothingToTrain, match="block_lr_weights") as error:
        plan(load(sd_dir), config(block_lr_weights=frozen, text_encoder_lr=1e-4))
    assert error.value.reason == "NO_TARGET_MODULES"


def test_every_weight_learns_at_the_product_of_its_rate_its_block_and_loraplus(sdxl_dir: Path) -> None:
    keys: dict[str, Any] = {
        "text_encoder_lr": 1e-5, "block_lr_weights": BLOCKS, "loraplus_lr_ratio": 16, "use_dora": True,
        "weight_decay": 0.1,
    }  # fmt: skip
    layers = adapted(sdxl_dir, **keys)[1]
    optimizer = build_optimizer(config(**keys), layers.trained)
    set_rates(optimizer, Rates(denoiser=1e-3, text_encoder=1e-5))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(groups) == len(layers.weights)
    for weight in layers.weights:
        usual = 1e-5 if weight.target.component.startswith("text") else 1e-3
        faster = 16 if weight.role == "up" else 1
        group = groups[id(weight.parameter)]
        assert group["lr"] == pytest.approx(usual * weight.target.rate * faster)
        assert group["weight_decay"] == (0.0 if weight.role == "magnitude" else 0.1)
