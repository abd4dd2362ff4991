"""File formats keep what they are given and account for every key."""

from __future__ import annotations

import json
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.errors import LoraError
from terroir.lora.formats import parse, to_diffusers, to_kohya
from tests.unit.lora.adapters import TABLE, adapters, random_adapter, same

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
STEM = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def tensors_of(data: bytes) -> dict[str, np.ndarray]:
    return load(data)


@given(adapters)
def test_kohya_files_come_back_as_they_were(adapter):
    parsed = parse(to_kohya(adapter, {}), TABLE)
    assert (parsed.format, parsed.ignored, parsed.matched) == ("kohya", (), len(adapter.modules))
    assert same(parsed.adapter, adapter)


@given(adapters)
def test_diffusers_files_apply_the_same_change(adapter):
    parsed = parse(to_diffusers(adapter), TABLE)
    assert (parsed.format, parsed.ignored) == ("diffusers", ())
    for layer, module in adapter.modules.items():
        np.testing.assert_allclose(parsed.adapter.modules[layer].delta(), module.delta(), rtol=1e-5, atol=1e-4)


@given(adapters)
def test_equal_adapters_give_equal_bytes(adapter):
    assert to_kohya(adapter, {"b": "2", "a": "1"}) == to_kohya(adapter, {"a": "1", "b": "2"})
    assert to_diffusers(adapter) == to_diffusers(adapter)


def test_the_official_reader_reads_what_we_write():
    adapter = random_adapter(1)
    tensors = tensors_of(to_kohya(adapter, {"title": "东坡"}))
    assert tensors[f"{Q}.alpha"].shape == ()
    assert tensors[f"{Q}.lora_down.weight"].dtype == np.float16


def test_values_that_half_precision_would_change_are_written_in_single():
    layer = STEM
    module = random_adapter(1).modules[layer]
    fine = Adapter({layer: LoraModule(module.down, module.up * np.float32(1 / 3), 4.0)})
    assert tensors_of(to_kohya(fine, {}))[f"{Q}.lora_up.weight"].dtype == np.float32
    assert tensors_of(to_diffusers(fine))[f"{STEM}.lora_B.weight"].dtype == np.float32
    assert same(parse(to_kohya(fine, {}), TABLE).adapter, fine)


def test_an_alpha_of_32_bits_does_not_double_the_file():
    adapter = random_adapter(1, alpha=float(np.float32(1 / 3)))
    tensors = tensors_of(to_kohya(adapter, {}))
    assert (tensors[f"{Q}.lora_up.weight"].dtype, tensors[f"{Q}.alpha"].dtype) == (np.float16, np.float32)
    assert same(parse(to_kohya(adapter, {}), TABLE).adapter, adapter)


def test_a_bfloat16_adapter_stays_one():
    module = random_adapter(1).modules[STEM]
    coarse = (module.down.view("<u4") & 0xFFFF0000).view("<f4") * np.float32(2.0**-30)
    adapter = Adapter({STEM: LoraModule(coarse, coarse.T.copy(), 2.0)})
    data = to_kohya(adapter, {})
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header[f"{Q}.lora_up.weight"]["dtype"] == "BF16"
    assert same(parse(data, TABLE).adapter, adapter)


def test_kohya_headers_name_network_and_hash_and_never_the_peft_config():
    """diffusers raises when a file has both alpha tensors and `lora_adapter_metadata` (loaders/peft.py)."""
    data = to_kohya(random_adapter(1), {"ss_base_model_version": "sd_v1"})
    metadata = parse(data, TABLE).metadata
    assert metadata["ss_network_dim"] == "2"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert len(metadata["sshs_model_hash"]) == 64
    assert "lora_adapter_metadata" not in metadata


def test_the_header_does_not_change_the_tensor_digest():
    adapter = random_adapter(5)
    one, two = (parse(to_kohya(adapter, {"title": t}), TABLE).adapter for t in ("one", "two"))
    assert one.tensor_digest() == two.tensor_digest()


def test_alpha_absent_means_alpha_equals_rank():
    tensors = {k: v for k, v in tensors_of(to_kohya(random_adapter(2, rank=4), {})).items() if not k.endswith("alpha")}
    assert {m.alpha for m in parse(save(tensors), TABLE).adapter.modules.values()} == {4.0}


def test_peft_folders_and_rslora_headers_are_understood():
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    module = random_adapter(3, rank=4).modules[layer]
    path = layer.removeprefix("unet.")
    tensors = {
        f"base_model.model.{path}.lora_A.weight": module.down,
        f"base_model.model.{path}.lora_B.weight": module.up,
    }
    header = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.use_rslora": True})}
    parsed = parse(save(tensors, header), TABLE)
    assert (parsed.format, parsed.adapter.modules[layer].scale) == ("peft", 8 / np.sqrt(4))


def test_bfloat16_files_are_read():
    module = random_adapter(4).modules["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"]
    halves = {
        f"{Q}.lora_down.weight": (module.down.view("<u4") >> 16).astype("<u2"),
        f"{Q}.lora_up.weight": (module.up.view("<u4") >> 16).astype("<u2"),
    }
    header, body = {}, b""
    for name, values in halves.items():
        end = len(body) + values.nbytes
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [len(body), end]}
        body += values.tobytes()
    head = json.dumps(header).encode()
    parsed = parse(struct.pack("<Q", len(head)) + head + body, TABLE)
    (read,) = parsed.adapter.modules.values()
    np.testing.assert_allclose(read.down, module.down, rtol=1e-2)


def test_unknown_layers_are_listed_with_a_reason():
    tensors = tensors_of(to_kohya(random_adapter(6), {}))
    tensors["lora_unet_nowhere.alpha"] = np.asarray(1.0, np.float32)
    tensors["lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"] = np.asarray(1.0, np.float32)
    tensors["bundle_emb.style.string_to_param.*"] = np.ones((2, 8), np.float32)
    parsed = parse(save(tensors), TABLE)
    reasons = {each.key: each.reason for each in parsed.unknown}
    assert reasons["lora_unet_nowhere.alpha"] == "no such layer in the base"
    assert "second text encoder" in reasons["lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"]
    assert [each.key for each in parsed.ignored] == ["bundle_emb.style.string_to_param.*"]


@given(st.data())
def test_damaged_files_raise_only_our_errors(data):
    content = bytearray(to_kohya(random_adapter(8), {}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        parsed = parse(cut, TABLE)
    except LoraError:
        return
    assert parsed.matched >= 1
