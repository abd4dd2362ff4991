"""Files that must not become a version: each is refused with its reason, and the message says what to do."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.errors import LoraError
from terroir.lora.formats import parse, to_diffusers, to_kohya
from tests.unit.lora.adapters import TABLE, random_adapter

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
STEM = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"


def with_key(key: str, value: np.ndarray) -> bytes:
    return save({**load(to_kohya(random_adapter(7), {})), key: value})


def pickled() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02}q.")
    return buffer.getvalue()


ONES = np.ones((2, 8), np.float32)
PAIR = {f"{STEM}.lora_A.weight": ONES, f"{STEM}.lora_B.weight": np.ones((8, 2), np.float32)}


def with_config(text: str) -> bytes:
    return save(PAIR, {"lora_adapter_metadata": text})


def raw(header: Any, body: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(head)) + head + body


def entry(start: int, stop: int, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def doubled() -> bytes:
    one = json.dumps(entry(0, 8))
    return raw(f'{{"a": {one}, "a": {one}}}', bytes(8))


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
    "a DoRA an input": (with_key(f"{Q}.dora_scale", np.ones((1, 8), np.float32)), "ADAPTER_UNSUPPORTED"),
    "an alpha of 0": (with_key(f"{Q}.alpha", np.asarray(0, np.float32)), "ADAPTER_STRENGTH_UNKNOWN"),
    "a scale of A1111": (with_key(f"{Q}.scale", np.asarray(1, np.float32)), "ADAPTER_STRENGTH_UNKNOWN"),
    "OFT": (save({f"{Q}.oft_blocks": ONES}), "ADAPTER_UNSUPPORTED"),
    "(IA)³": (save({f"{Q}.on_input": ONES}), "ADAPTER_UNSUPPORTED"),
    "a full difference": (save({f"{Q}.diff": ONES}), "ADAPTER_UNSUPPORTED"),
    "a Tucker core for a matrix": (with_key(f"{Q}.lora_mid.weight", ONES), "ADAPTER_WRONG_SHAPE"),
    "LoHa of PEFT": (save({f"base_model.model.{STEM[5:]}.hada_w1_a": ONES}), "ADAPTER_UNSUPPORTED"),
    "LoKr of diffusers": (save({f"{STEM}.lokr_w1": ONES}), "ADAPTER_UNSUPPORTED"),
    "no known format": (save({"model.weight": ONES}), "ADAPTER_FORMAT_UNKNOWN"),
    "no tensors": (save({}), "ADAPTER_FORMAT_UNKNOWN"),
    "an alpha of 0 in the header": (with_config('{"unet.lora_alpha": 0}'), "ADAPTER_STRENGTH_UNKNOWN"),
    "an alpha below all floats": (with_config('{"unet.lora_alpha": 1e-60}'), "ADAPTER_STRENGTH_UNKNOWN"),
    "an alpha of true": (with_config('{"unet.lora_alpha": true}'), "ADAPTER_STRENGTH_UNKNOWN"),
    "a config without alpha": (with_config('{"unet.r": 2}'), "ADAPTER_STRENGTH_UNKNOWN"),
    "a config that is a list": (with_config("[]"), "ADAPTER_STRENGTH_UNKNOWN"),
    "a pattern that would run for years": (
        with_config('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"(a+)+$": 2}}'),
        "ADAPTER_STRENGTH_UNKNOWN",
    ),
    "a PEFT folder's file by itself": (
        save({f"base_model.model.{key.removeprefix('unet.')}": value for key, value in PAIR.items()}),
        "ADAPTER_STRENGTH_UNKNOWN",
    ),
    "PiSSA": (with_config('{"unet.lora_alpha": 2, "unet.init_lora_weights": "pissa_niter_4"}'), "ADAPTER_UNSUPPORTED"),
    "a DoRA without magnitudes": (with_config('{"unet.lora_alpha": 2, "unet.use_dora": true}'), "ADAPTER_INCOMPLETE"),
    "a bias beside the factors": (save({**PAIR, f"{STEM}.lora_B.bias": ONES[0]}), "ADAPTER_UNSUPPORTED"),
    "a kohya bias": (with_key(f"{Q}.bias", ONES[0]), "ADAPTER_UNSUPPORTED"),
    "a scalar of LyCORIS": (with_key(f"{Q}.scalar", ONES[0]), "ADAPTER_UNSUPPORTED"),
    "something unheard of at a known layer": (with_key(f"{Q}.frobnicate", ONES), "ADAPTER_UNSUPPORTED"),
    "norms": (with_key("lora_unet_down_blocks_0_resnets_0_norm1.w_norm", ONES[0]), "ADAPTER_UNSUPPORTED"),
    "a negative magnitude": (with_key(f"{Q}.dora_scale", -np.ones((8, 1), np.float32)), "ADAPTER_WRONG_SHAPE"),
    "an alpha under both te names": (
        save(
            {
                f"{te}_text_model_encoder_layers_0_self_attn_q_proj.alpha": np.asarray(1, np.float32)
                for te in ("lora_te", "lora_te1")
            }
        ),
        "ADAPTER_DUPLICATE_KEY",
    ),
    "a rank without end": (
        save({f"{Q}.lora_down.weight": np.ones((4097, 8), "f2"), f"{Q}.lora_up.weight": np.ones((8, 4097), "f2")}),
        "ADAPTER_RANK_TOO_LARGE",
    ),
    "a core that unfolds to gigabytes": (
        save(
            {
                f"{CONV}.lora_mid.weight": np.ones((100_000, 1, 3, 3), "f2"),
                f"{CONV}.lora_down.weight": np.ones((1, 4, 1, 1), "f2"),
                f"{CONV}.lora_up.weight": np.ones((8, 1), "f2"),
            }
        ),
        "ADAPTER_RANK_TOO_LARGE",
    ),
    "a core that overflows": (
        save(
            {
                f"{CONV}.lora_mid.weight": np.full((1, 1, 3, 3), 1e30, "f4"),
                f"{CONV}.lora_down.weight": np.full((1, 4, 1, 1), 1e30, "f4"),
                f"{CONV}.lora_up.weight": np.ones((8, 1), "f2"),
            }
        ),
        "ADAPTER_NOT_FINITE",
    ),
    "a name twice": (doubled(), "ADAPTER_DUPLICATE_KEY"),
    "a gap between tensors": (raw({"a": entry(0, 8), "b": entry(16, 24)}, bytes(24)), "ADAPTER_FILE_UNREADABLE"),
    "tensors that overlap": (raw({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "ADAPTER_FILE_UNREADABLE"),
    "a tensor beyond the end": (raw({"a": entry(0, 8)}, bytes(4)), "ADAPTER_FILE_UNREADABLE"),
    "bytes that no tensor has": (raw({"a": entry(0, 8)}, bytes(9)), "ADAPTER_FILE_UNREADABLE"),
    "offsets the wrong way round": (raw({"a": entry(8, 0)}, bytes(8)), "ADAPTER_FILE_UNREADABLE"),
    "a shape that wraps around": (raw({"a": entry(0, 8, [2**62, 4])}, bytes(8)), "ADAPTER_FILE_UNREADABLE"),
    "a shape of true": (raw({"a": entry(0, 4, [True])}, bytes(4)), "ADAPTER_FILE_UNREADABLE"),
    "a shape of half": (raw({"a": entry(0, 8, [2.0])}, bytes(8)), "ADAPTER_FILE_UNREADABLE"),
    "nine dimensions": (raw({"a": entry(0, 4, [1] * 9)}, bytes(4)), "ADAPTER_FILE_UNREADABLE"),
    "an entry without shape": (
        raw({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
        "ADAPTER_FILE_UNREADABLE",
    ),
    "floats of 8 bits": (raw({"a": entry(0, 2, [2], "F8_E4M3")}, bytes(2)), "ADAPTER_NOT_FLOAT"),
    "an unheard-of type": (raw({"a": entry(0, 2, [2], ["F32"])}, bytes(2)), "ADAPTER_NOT_FLOAT"),
    "half a character in a name": (raw('{"\\ud800": 1}'), "ADAPTER_FILE_UNREADABLE"),
    "a line break in a name": (raw({"a\nb": entry(0, 8)}, bytes(8)), "ADAPTER_FILE_UNREADABLE"),
    "half a character in the metadata": (raw('{"__metadata__": {"a": "\\udfff"}}'), "ADAPTER_FILE_UNREADABLE"),
    "metadata that is no text": (raw({"__metadata__": {"a": 1}}), "ADAPTER_FILE_UNREADABLE"),
    "a header in UTF-16": (raw("{}".encode("utf-16-le")), "ADAPTER_FILE_UNREADABLE"),
    "too many tensors": (
        raw({f"t{n}": entry(0, 0, [0]) for n in range(20_001)}),
        "ADAPTER_TOO_MANY_TENSORS",
    ),
    "no layer of the base": (save({"lora_unet_elsewhere.lora_down.weight": ONES}), "ADAPTER_MATCHES_NOTHING"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_reason(name):
    data, reason = BAD_FILES[name]
    with pytest.raises(LoraError) as caught:
        parse(data, TABLE)
    assert caught.value.reason == reason
    message = str(caught.value)
    f"{message}{caught.value.key}".encode()
    assert len(message) < 600


@pytest.mark.slow  # tracing eight megabytes of the smallest objects
@pytest.mark.parametrize("part", ["[],", '{"a":1},', '"ab",', "1.5,"])
def test_a_hostile_header_takes_bounded_memory(part):
    """The largest header that is read at all, full of the smallest things that JSON knows."""
    limit = 8 * 1024 * 1024
    data = raw("{" + '"a":[' + part * ((limit - 20) // len(part)) + "1]}")
    tracemalloc.start()
    try:
        with pytest.raises(LoraError):
            parse(data, TABLE)
        assert tracemalloc.get_traced_memory()[1] < 400 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_lora_beside_a_dora_is_not_written_for_peft():
    """PEFT would make a magnitude up for the layer that has none, and change its strength."""
    modules = dict(random_adapter(1).modules)
    module = modules[STEM]
    modules[STEM] = LoraModule(module.down, module.up, module.alpha, np.ones(8, np.float32))
    with pytest.raises(LoraError, match="LoRA and"):
        to_diffusers(Adapter(modules))
