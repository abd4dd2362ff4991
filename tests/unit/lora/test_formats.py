"""File formats keep what they are given, account for every key, and refuse the rest by name."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from terroir.lora.errors import LoraError
from terroir.lora.formats import parse, to_diffusers, to_kohya
from tests.unit.lora.adapters import TABLE, adapters, random_adapter, same

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


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
    adapter = random_adapter(1, alpha=1 / 3)
    assert tensors_of(to_kohya(adapter, {}))[f"{Q}.lora_up.weight"].dtype == np.float32
    assert same(parse(to_kohya(adapter, {}), TABLE).adapter, random_adapter(1, alpha=float(np.float32(1 / 3))))


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


def with_key(key: str, value: np.ndarray) -> bytes:
    return save({**tensors_of(to_kohya(random_adapter(7), {})), key: value})


def pickled() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02}q.")
    return buffer.getvalue()


STEM = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
ONES = np.ones((2, 8), np.float32)
PAIR = {f"{STEM}.lora_A.weight": ONES, f"{STEM}.lora_B.weight": np.ones((8, 2), np.float32)}


def with_config(text: str) -> bytes:
    return save(PAIR, {"lora_adapter_metadata": text})


BAD_FILES = {
    "an alpha of NaN in the header": (with_config('{"unet.lora_alpha": NaN}'), "ADAPTER_NOT_FINITE"),
    "an infinite alpha in the header": (with_config('{"unet.lora_alpha": 1e999}'), "ADAPTER_NOT_FINITE"),
    "an alpha beyond floats": (with_config('{"unet.lora_alpha": 1' + "0" * 400 + "}"), "ADAPTER_NOT_FINITE"),
    "a bottomless config": (with_config("[" * 200_000), "ADAPTER_STRENGTH_UNKNOWN"),
    "a config that is no JSON": (with_config("{oops"), "ADAPTER_STRENGTH_UNKNOWN"),
    "a dotted alpha": (save({**PAIR, f"{STEM}.alpha": np.asarray(1, np.float32)}), "ADAPTER_STRENGTH_UNKNOWN"),
    "an alpha of two values": (with_key(f"{Q}.alpha", np.ones(2, np.float32)), "ADAPTER_STRENGTH_UNKNOWN"),
    "a factor named twice": (save({**PAIR, f"{STEM}.lora.down.weight": ONES}), "ADAPTER_DUPLICATE_KEY"),
    "nothing": (b"", "ADAPTER_FILE_UNREADABLE"),
    "garbage": (b"not a file at all", "ADAPTER_FILE_UNREADABLE"),
    "a header of 2^60 bytes": (struct.pack("<Q", 2**60) + b"{}", "ADAPTER_FILE_UNREADABLE"),
    "deeply nested JSON": (struct.pack("<Q", 100_000) + b"[" * 100_000, "ADAPTER_FILE_UNREADABLE"),
    "cut short": (to_kohya(random_adapter(7), {})[:-5], "ADAPTER_FILE_UNREADABLE"),
    "a zip of pickles": (pickled(), "ADAPTER_IS_PICKLE"),
    "a bare pickle": (b"\x80\x04\x95.", "ADAPTER_IS_PICKLE"),
    "NaN": (with_key(f"{Q}.lora_up.weight", np.full((8, 2), np.nan, np.float32)), "ADAPTER_NOT_FINITE"),
    "integers": (with_key(f"{Q}.lora_up.weight", np.ones((8, 2), np.int64)), "ADAPTER_NOT_FLOAT"),
    "another base": (with_key(f"{Q}.lora_down.weight", np.ones((2, 9), np.float32)), "ADAPTER_WRONG_SHAPE"),
    "rank 0": (
        save(
            {f"{Q}.lora_down.weight": np.ones((0, 8), np.float32), f"{Q}.lora_up.weight": np.ones((8, 0), np.float32)}
        ),
        "ADAPTER_WRONG_SHAPE",
    ),
    "half a pair": (save({f"{Q}.lora_down.weight": ONES}), "ADAPTER_INCOMPLETE"),
    "a DoRA an input": (with_key(f"{Q}.dora_scale", np.ones((1, 8), np.float32)), "ADAPTER_WRONG_SHAPE"),
    "an alpha of 0": (with_key(f"{Q}.alpha", np.asarray(0, np.float32)), "ADAPTER_STRENGTH_UNKNOWN"),
    "a scale of A1111": (with_key(f"{Q}.scale", np.asarray(1, np.float32)), "ADAPTER_STRENGTH_UNKNOWN"),
    "OFT": (save({f"{Q}.oft_blocks": ONES}), "ADAPTER_UNSUPPORTED"),
    "(IA)³": (save({f"{Q}.on_input": ONES}), "ADAPTER_UNSUPPORTED"),
    "a full difference": (save({f"{Q}.diff": ONES}), "ADAPTER_UNSUPPORTED"),
    "a Tucker core for a matrix": (with_key(f"{Q}.lora_mid.weight", ONES), "ADAPTER_WRONG_SHAPE"),
    "LoHa": (save({f"{Q}.hada_w1_a": ONES}), "ADAPTER_UNSUPPORTED"),
    "LoKr": (save({f"{Q}.lokr_w1": ONES}), "ADAPTER_UNSUPPORTED"),
    "no known format": (save({"model.weight": ONES}), "ADAPTER_FORMAT_UNKNOWN"),
    "no tensors": (save({}), "ADAPTER_FORMAT_UNKNOWN"),
    "no layer of the base": (save({"lora_unet_elsewhere.lora_down.weight": ONES}), "ADAPTER_MATCHES_NOTHING"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_reason(name):
    data, reason = BAD_FILES[name]
    with pytest.raises(LoraError) as caught:
        parse(data, TABLE)
    assert caught.value.reason == reason


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
