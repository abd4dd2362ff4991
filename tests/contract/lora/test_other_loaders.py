"""Files that we write load elsewhere with the same change: diffusers for real, A1111 and ComfyUI by their rule sets.

The rules of A1111 and ComfyUI are re-stated here from their loaders (A1111 extensions-builtin/Lora/networks.py, ComfyUI
comfy/lora.py `model_lora_keys_unet`). Plain diffusers keys load 0 layers in ComfyUI (ComfyUI#2689, diffusers#10860), so
the kohya file is the one that is kept.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.lora import LoraLayer
from safetensors.numpy import load

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import parse, to_diffusers, to_kohya
from terroir.lora.key_table import key_table_of
from terroir.tiny.random_pipeline import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def table(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    return key_table_of(
        {name: tuple(p.shape) for name, p in pipeline.unet.named_parameters()},
        {name: tuple(p.shape) for name, p in pipeline.text_encoder.named_parameters()},
    )


def make(table, *, text: bool, seed: int = 0) -> Adapter:
    """Attention layers at mixed ranks, alpha unlike rank."""
    rng = np.random.default_rng(seed)
    modules = {}
    for index, (layer, shape) in enumerate(sorted(table.items())):
        attention = layer.endswith(("to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1"))
        if attention if layer.startswith("unet.") else (text and layer.endswith(("q_proj", "fc1"))):
            rank = 2 + index % 3
            tail = (1, 1) if len(shape) == 4 else ()
            down = rng.standard_normal((rank, *shape[1:])).astype(np.float16).astype(np.float32)
            up = rng.standard_normal((shape[0], rank, *tail)).astype(np.float16).astype(np.float32)
            modules[layer] = LoraModule(down, up, alpha=3.0)
    return Adapter(modules)


def loaded_deltas(model: torch.nn.Module) -> dict[str, np.ndarray]:
    deltas = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            (adapter,) = layer.lora_A
            deltas[f"unet.{name}"] = layer.get_delta_weight(adapter).detach().numpy()
    return deltas


@pytest.mark.parametrize("write", [lambda a: to_kohya(a, {}), to_diffusers], ids=["kohya", "diffusers"])
def test_diffusers_applies_our_change(folder, table, write, tmp_path):
    """Denoiser layers only: diffusers 0.42 cannot load a Stable Diffusion text-encoder LoRA under transformers 5, which
    dropped `text_model.` from the module names (diffusers#13984); the rule sets below cover those keys."""
    adapter = make(table, text=False)
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(write(adapter))
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="style")
    loaded = loaded_deltas(pipeline.unet)
    assert set(loaded) == set(adapter.modules)
    for layer, module in adapter.modules.items():
        np.testing.assert_allclose(loaded[layer], module.delta(), rtol=1e-3, atol=1e-3)


def test_every_key_is_one_that_a1111_and_comfyui_know(table):
    """A1111 splits at the first dot; ComfyUI maps `lora_unet_` / `lora_te_` plus the layer path with underscores."""
    keys = load(to_kohya(make(table, text=True), {}))
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
    split = (layer.split(".", 1) for layer in table)
    comfy = {prefixes[component] + path.replace(".", "_") for component, path in split}
    for key in keys:
        network, part = key.split(".", 1)
        assert network in comfy
        assert part in {"lora_down.weight", "lora_up.weight", "alpha"}
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_self_attn_q_proj.") for key in keys)


def test_a_file_saved_by_diffusers_is_understood(folder, table, tmp_path):
    """`save_lora_weights` keeps alpha in the header only; without it the file would come back at another strength
    (diffusers#6135, #9143, #11324)."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["to_q"], init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    expected = loaded_deltas(pipeline.unet)
    pipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=config.to_dict(),
    )
    parsed = parse((tmp_path / "pytorch_lora_weights.safetensors").read_bytes(), table)
    assert set(parsed.adapter.modules) == set(expected)
    for layer, module in parsed.adapter.modules.items():
        np.testing.assert_allclose(module.delta(), expected[layer], rtol=1e-4, atol=1e-5)
