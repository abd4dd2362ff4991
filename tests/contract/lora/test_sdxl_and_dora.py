"""SDXL and DoRA in diffusers itself: the change that it applies is the one that we compute."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict

from terroir.inference.engine.wearing import device_adapter, merging
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import parse, to_diffusers, to_kohya
from terroir.lora.key_table import key_table_of
from terroir.tiny.random_pipeline import build
from tests.contract.lora.full_width import shapes, tiny_sdxl

pytestmark = pytest.mark.slow  # loads pipelines of diffusers
REACHED = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLVED = (
    *REACHED, "conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in",
    "conv_out", "time_embedding.linear_1", "add_embedding.linear_2",
)  # fmt: skip


def make(table, endings, *, component="unet.", magnitude=False) -> Adapter:
    """Mixed ranks, alpha unlike rank, values that half precision holds."""
    rng = np.random.default_rng(5)
    modules = {}
    for index, (layer, shape) in enumerate(sorted(table.items())):
        if layer.startswith(component) and layer.endswith(endings):
            rank = 2 + index % 3
            tail = (1, 1) if len(shape) == 4 else ()
            down, up = (
                (rng.standard_normal(size) * 0.1).astype(np.float16).astype(np.float32)
                for size in ((rank, *shape[1:]), (shape[0], rank, *tail))
            )
            lengths = rng.uniform(0.5, 2, shape[0]).astype(np.float16).astype(np.float32) if magnitude else None
            modules[layer] = LoraModule(down, up, 3.0, lengths)
    return Adapter(modules)


def loaded(model: torch.nn.Module, component: str) -> dict[str, LoraLayer]:
    return {f"{component}.{name}": layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def change_in(layer: LoraLayer) -> np.ndarray:
    """What PEFT's merge adds to the weight at strength 1."""
    before = layer.get_base_layer().weight.detach().clone()
    layer.merge()
    after = layer.get_base_layer().weight.detach().clone()
    layer.unmerge()
    return (after - before).numpy()


@pytest.fixture(scope="module")
def sdxl():
    pipeline = tiny_sdxl()
    models = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
    return pipeline, key_table_of(*map(shapes, models))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def table(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    return key_table_of(shapes(pipeline.unet), shapes(pipeline.text_encoder))


@pytest.mark.parametrize(
    ("write", "endings"),
    [
        (lambda a: to_kohya(a, {}, sdxl=True), CONVOLVED),
        (lambda a: to_kohya(a, {}), REACHED),
        (to_diffusers, CONVOLVED),
    ],
    ids=["original names", "diffusers names", "diffusers"],
)
def test_diffusers_applies_our_change_to_sdxl(sdxl, write, endings, tmp_path):
    """Kohya files of SDXL in diffusers' names are only tried on transformers: of those diffusers drops `add_embedding`,
    which is one more reason to write the original names."""
    pipeline, table = copy.deepcopy(sdxl[0]), sdxl[1]
    adapter = make(table, endings)
    (tmp_path / "adapter.safetensors").write_bytes(write(adapter))
    pipeline.load_lora_weights(tmp_path, weight_name="adapter.safetensors", adapter_name="style")
    layers = loaded(pipeline.unet, "unet")
    assert set(layers) == set(adapter.modules)
    for layer, module in adapter.modules.items():
        np.testing.assert_allclose(change_in(layers[layer]), module.delta(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("write", [lambda a: to_kohya(a, {}, sdxl=True), to_diffusers], ids=["kohya", "diffusers"])
def test_diffusers_applies_our_change_to_the_second_text_encoder(sdxl, write, tmp_path):
    """The first one's names changed in transformers 5 and diffusers 0.42 finds no layer of it (diffusers#13984)."""
    pipeline, table = copy.deepcopy(sdxl[0]), sdxl[1]
    adapter = make(table, ("q_proj", "fc1", "out_proj"), component="text_encoder_2.")
    (tmp_path / "adapter.safetensors").write_bytes(write(adapter))
    pipeline.load_lora_weights(tmp_path, weight_name="adapter.safetensors", adapter_name="style")
    layers = loaded(pipeline.text_encoder_2, "text_encoder_2")
    assert set(layers) == set(adapter.modules)
    for layer, module in adapter.modules.items():
        np.testing.assert_allclose(change_in(layers[layer]), module.delta(), rtol=1e-3, atol=1e-5)


def test_diffusers_applies_our_dora(folder, table, tmp_path):
    """Attention, feed-forward and convolutions; magnitudes come out of the file as PEFT wants them."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    adapter = make(table, (*REACHED, "conv1"), magnitude=True)
    (tmp_path / "adapter.safetensors").write_bytes(to_diffusers(adapter))
    pipeline.load_lora_weights(tmp_path, weight_name="adapter.safetensors", adapter_name="style")
    layers = loaded(pipeline.unet, "unet")
    assert set(layers) == set(adapter.modules)
    for layer, module in adapter.modules.items():
        base = layers[layer].get_base_layer().weight.detach().numpy()
        np.testing.assert_allclose(change_in(layers[layer]), module.change_of(base), rtol=1e-3, atol=1e-4)


def test_a_dora_saved_by_diffusers_is_read(folder, table, tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    config = LoraConfig(
        r=2, lora_alpha=6, use_dora=True, init_lora_weights=False, target_modules=["to_q", "to_out.0", "conv1"]
    )
    pipeline.unet.add_adapter(config)
    expected = {layer: change_in(module) for layer, module in loaded(pipeline.unet, "unet").items()}
    base = {
        layer: module.get_base_layer().weight.detach().numpy()
        for layer, module in loaded(pipeline.unet, "unet").items()
    }
    pipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=config.to_dict(),
    )
    parsed = parse((tmp_path / "pytorch_lora_weights.safetensors").read_bytes(), table)
    assert set(parsed.adapter.modules) == set(expected)
    for layer, module in parsed.adapter.modules.items():
        np.testing.assert_allclose(module.change_of(base[layer]), expected[layer], rtol=1e-3, atol=1e-4)


def test_the_engine_merges_a_dora_beside_a_lora(folder, table):
    """At weight 1 as PEFT; weights are linear in the change, so half of it is half-way to the base."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    dora, lora = make(table, ("to_q", "conv1"), magnitude=True), make(table, ("to_q",))
    layers = {layer: pipeline.unet.get_submodule(layer.removeprefix("unet.")) for layer in dora.modules}
    pristine = {layer: module.weight.detach().clone() for layer, module in layers.items()}
    on_device = {
        digest: device_adapter.on_device(adapter, "cpu") for digest, adapter in (("dora", dora), ("lora", lora))
    }
    for layer, module in dora.modules.items():
        base = pristine[layer].numpy()
        expected = base + 0.5 * module.change_of(base)
        terms = [(0.5, on_device["dora"][layer])]
        if layer in lora.modules:
            expected = expected + 2 * lora.modules[layer].delta()
            terms.append((2.0, on_device["lora"][layer]))
        found = merging.merged(layers[layer].weight, terms)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(layers[layer].weight, weight) for layer, weight in pristine.items())
