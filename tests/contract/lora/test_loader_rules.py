"""Every key that we write at full width is one that A1111 and ComfyUI apply to the right layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import parse, to_kohya
from terroir.lora.formats.headers import Description, describe
from tests.contract.lora import loader_rules as rules
from tests.unit.lora.published import file_of, key_table, layout

BLOCKS = {"sd15": rules.SD15, "sdxl": rules.SDXL}
TEXT_LAYERS = {"sd15": {"text_encoder": 12}, "sdxl": {"text_encoder": 12, "text_encoder_2": 32}}
LAYOUTS = {"sd15": "kohya_sd15_locon", "sdxl": "kohya_sdxl_diffusers"}


def everything(family: str) -> Adapter:
    """Rank 1 on every layer that trainers can reach; the second encoder's projection is no module of A1111."""
    rng = np.random.default_rng(0)
    modules = {}
    for index, (layer, (out, *inner)) in enumerate(sorted(key_table(family).items())):
        if not layer.endswith("text_projection"):
            tail = (1, 1) if len(inner) == 3 else ()
            down, up = (rng.standard_normal(shape, np.float32) for shape in ((1, *inner), (out, 1, *tail)))
            modules[layer] = LoraModule(down, up, alpha=1.0 + index % 3)
    return Adapter(modules)


def description(family: str) -> dict[str, str]:
    side = {"sd15": 512, "sdxl": 1024}[family]
    return describe(Description("style", family, side, "epsilon"))


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def written(request):
    family = request.param
    adapter = everything(family)
    return family, adapter, load(to_kohya(adapter, description(family), sdxl=family == "sdxl"))


def unet_paths(family: str) -> list[str]:
    return [layer.removeprefix("unet.") for layer in key_table(family) if layer.startswith("unet.")]


def test_comfyui_applies_every_layer_where_it_belongs(written):
    family, adapter, tensors = written
    names = rules.comfy_key_map(unet_paths(family), BLOCKS[family], TEXT_LAYERS[family])
    networks = {key.partition(".")[0] for key in tensors}
    assert {names[network] for network in networks} == set(adapter.modules)
    for network in sorted(networks)[::101]:
        expected = adapter.modules[names[network]].delta()
        np.testing.assert_allclose(rules.added_weight(tensors, network), expected, rtol=1e-5, atol=1e-6)


def test_a1111_applies_every_layer_where_it_belongs(written):
    family, adapter, tensors = written
    modules = rules.a1111_modules(unet_paths(family), BLOCKS[family], TEXT_LAYERS[family])
    networks = {key.partition(".")[0] for key in tensors}
    found = {network: rules.a1111_module(network, modules) for network in networks}
    assert [network for network, module in found.items() if module is None] == []
    # q, k and v of SDXL's second encoder share one module; all others have their own.
    shared = 2 * TEXT_LAYERS[family].get("text_encoder_2", 0)
    assert len(set(found.values())) == len(adapter.modules) - shared
    for layer in sorted(adapter.modules):
        if layer.startswith("unet."):
            name = rules.checkpoint_name(layer.removeprefix("unet."), BLOCKS[family])
            assert f"diffusion_model_{name.replace('.', '_')}" in found.values()


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a1111_lists_the_file_under_its_family(family):
    data = to_kohya(parse(file_of(layout(LAYOUTS[family])), key_table(family)).adapter, description(family))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert rules.a1111_version(header["__metadata__"]) == {"sd15": "SD1", "sdxl": "SDXL"}[family]


def test_sdxl_in_diffusers_names_would_lose_a_layer_in_a1111():
    """Why SDXL is written in the original names: A1111 takes the first up block for one without attention."""
    modules = rules.a1111_modules(unet_paths("sdxl"), rules.SDXL, {})
    assert rules.a1111_module("lora_unet_up_blocks_0_upsamplers_0_conv", modules) is None
    assert rules.a1111_module("lora_unet_output_blocks_2_2_conv", modules) is not None


def test_comfyui_points_a_dora_the_same_way_at_another_length():
    """ComfyUI divides by the rows of the unchanged weight, PEFT and LyCORIS by those of the changed one."""
    rng = np.random.default_rng(3)
    module = LoraModule(
        rng.standard_normal((2, 6), np.float32), rng.standard_normal((4, 2), np.float32), 2.0, np.ones(4, np.float32)
    )
    base = rng.standard_normal((4, 6), np.float32)
    ours = base + module.change_of(base)
    theirs = rules.comfy_dora(base, module.delta(), np.ones((4, 1), np.float32))
    lengths = np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(theirs / lengths, ours, rtol=1e-4, atol=1e-5)
    assert not np.allclose(lengths, 1)
