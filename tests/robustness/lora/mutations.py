"""Adapter files and what can happen to one, all from a seeded generator: the same case number, the same bytes."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from safetensors.numpy import save

from terroir.lora.key_table import KeyTable

TABLE: Final[KeyTable] = {
    "unet.conv_in": (8, 4, 3, 3),
    "unet.down_blocks.0.attentions.0.proj_in": (8, 8, 1, 1),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": (8, 8),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (8, 6),
    "unet.down_blocks.0.resnets.0.conv1": (8, 4, 3, 3),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (6, 6),
    "text_encoder_2.text_model.encoder.layers.0.mlp.fc1": (12, 6),
}
_KOHYA: Final = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
_DTYPES: Final = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "X", "", None, 3, [], "F32\ud800")
_NUMBERS: Final = (0, 1, -1, 2, 7, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, float("nan"), True, None, "1", [], {})
_WORDS: Final = (
    "", ".", "lora_unet_", "lora_unet_conv_in", "lora_te2_", ".alpha", ".dora_scale", ".lora_mid.weight", ".hada_w1_a",
    ".hada_t1", ".lokr_w1", ".lokr_w2", ".lokr_t2",
    ".diff", ".diff_b", ".on_input", ".oft_blocks", ".w_norm", ".scale", ".scalar", ".bias", "unet.conv_in",
    ".lora_A.weight", ".lora_B.default.weight", ".lora.down.weight", ".lora_magnitude_vector", "base_model.model.",
    "lora_unet_input_blocks_0_0", "lora_unet_output_blocks_99999999999999999999_1_proj_in",
    "bundle_emb.x.string_to_param.*",
    "text_encoder.", "transformer.", "\x00", "\u202e", "\ud800", "𝔘" * 50, "a" * 5000, "__metadata__",
    "processor.to_q_lora.up.weight",
)  # fmt: skip
_CONFIGS: Final = (
    "", "{", "[]", "null", "1e999", '{"unet.lora_alpha": NaN}', '{"unet.lora_alpha": -Infinity}', '{"unet.r": "x"}',
    '{"unet.lora_alpha": 1e400}', '{"unet.lora_alpha": true}', '{"unet.alpha_pattern": {"(a+)+$": 3}}',
    '{"unet.alpha_pattern": {"to_q": []}}', '{"unet.alpha_pattern": 5}', '{"unet.use_dora": 1}', '{"lora_alpha": 4}',
    '{"unet.use_rslora": "no"}', '{"unet.init_lora_weights": "pissa"}', '{"unet.lora_alpha": 1, "unet.lora_alpha": 2}',
    "[" * 5000, '{"unet.lora_bias": true}', '{"unet.lora_alpha": ' + "9" * 5000 + "}", '"\\ud800"',
)  # fmt: skip


def case(number: int, seed: int = 20261123) -> bytes:
    """A file to which one to four things happened."""
    rng = random.Random(f"{seed}/{number}")
    data = rng.choice(_FILES)(rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(_MUTATIONS)(rng, data)
    return data


def _factors(rng: random.Random, layer: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    out, *inner = TABLE[layer]
    rank, dtype = rng.randint(1, 4), rng.choice(("f2", "f4", "f8"))
    noise = np.random.default_rng(rng.getrandbits(32))
    tail = (1, 1) if len(inner) == 3 else ()
    return noise.standard_normal((rank, *inner)).astype(dtype), noise.standard_normal((out, rank, *tail)).astype(dtype)


def _kohya(rng: random.Random) -> bytes:
    tensors = {}
    magnitude = rng.random() < 0.3
    for layer in rng.sample(sorted(TABLE), rng.randint(1, len(TABLE))):
        component, _, path = layer.partition(".")
        stem = _KOHYA[component] + path.replace(".", "_")
        down, up = _factors(rng, layer)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        if rng.random() < 0.8:
            tensors[f"{stem}.alpha"] = np.asarray(rng.choice((0.5, 1.0, 4.0)), np.float32)
        if magnitude:
            tensors[f"{stem}.dora_scale"] = np.ones((up.shape[0], *[1] * (len(TABLE[layer]) - 1)), np.float32)
        if down.ndim == 4 and rng.random() < 0.2:
            rank = down.shape[0]
            tensors[f"{stem}.lora_mid.weight"] = np.ones((rank, rank, *TABLE[layer][2:]), np.float32)
            tensors[f"{stem}.lora_down.weight"] = np.ones((rank, down.shape[1], 1, 1), np.float32)
    return _saved(tensors, {"ss_network_module": "networks.lora", "ss_base_model_version": "sd_v1"})


def _peft(rng: random.Random) -> bytes:
    names = rng.choice(
        (
            ("lora_A.weight", "lora_B.weight"),
            ("lora.down.weight", "lora.up.weight"),
            ("lora_A.weight", "lora.up.weight"),
        )
    )
    prefix = rng.choice(("", "", "base_model.model."))
    magnitude = rng.random() < 0.3
    tensors = {}
    for layer in rng.sample(sorted(TABLE), rng.randint(1, len(TABLE))):
        path = prefix + (layer.partition(".")[2] if prefix else layer)
        down, up = _factors(rng, layer)
        tensors |= {f"{path}.{names[0]}": down, f"{path}.{names[1]}": up}
        if magnitude:
            tensors[f"{path}.lora_magnitude_vector"] = np.ones(up.shape[0], np.float32)
    config = {
        "unet.lora_alpha": rng.choice((1, 4, 8.5)),
        "unet.use_dora": magnitude,
        "unet.use_rslora": rng.random() < 0.2,
    }
    return _saved(tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config)})


def _lycoris(rng: random.Random) -> bytes:
    """LoHa or LoKr, in the shapes that LyCORIS saves."""
    rank, kind, noise = rng.randint(1, 3), rng.choice(("hada", "lokr")), np.random.default_rng(rng.getrandbits(32))
    tensors: dict[str, np.ndarray[Any, Any]] = {}

    def product(stem: str, shape: tuple[int, ...]) -> None:
        core = stem.replace("_w", "_t")
        if len(shape) == 4 and rng.random() < 0.5:
            drawn = {f"{stem}_a": (rank, shape[0]), f"{stem}_b": (rank, shape[1]), core: (rank, rank, *shape[2:])}
        else:
            drawn = {f"{stem}_a": (shape[0], rank), f"{stem}_b": (rank, math.prod(shape[1:]))}
        for name, size in drawn.items():
            tensors[name] = noise.standard_normal(size).astype(np.float16)

    for layer in rng.sample(sorted(TABLE), rng.randint(1, len(TABLE))):
        component, _, path = layer.partition(".")
        stem, shape = _KOHYA[component] + path.replace(".", "_"), TABLE[layer]
        if kind == "hada":
            state = rng.getstate()
            product(f"{stem}.hada_w1", shape)
            rng.setstate(state)  # both have a core or none
            product(f"{stem}.hada_w2", shape)
        else:
            tensors[f"{stem}.lokr_w1"] = noise.standard_normal((2, 2)).astype(np.float16)
            rest = (shape[0] // 2, shape[1] // 2, *shape[2:])
            if rng.random() < 0.4:
                tensors[f"{stem}.lokr_w2"] = noise.standard_normal(rest).astype(np.float16)
            else:
                product(f"{stem}.lokr_w2", rest)
        if rng.random() < 0.8:
            tensors[f"{stem}.alpha"] = np.asarray(rng.choice((0.5, 1.0, 4.0)), np.float32)
    return _saved(tensors, {"ss_network_module": "lycoris.kohya", "ss_base_model_version": "sd_v1"})


def _saved(tensors: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> bytes:
    """A file with its metadata in this order; the library keeps it in a hash map, whose order changes by the call."""
    data = save(tensors)
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(data[8 : 8 + length])}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


_FILES: Final[tuple[Callable[[random.Random], bytes], ...]] = (_kohya, _kohya, _peft, _lycoris)


def _split(data: bytes) -> tuple[dict[str, Any], bytes] | None:
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError, OverflowError):
        return None
    return (header, data[8 + length :]) if isinstance(header, dict) else None


def _joined(header: Any, body: bytes, raw: str | None = None) -> bytes:
    head = (raw if raw is not None else json.dumps(header)).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(head)) + head + body


def _bytes_changed(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    start = rng.randrange(max(1, min(len(data), rng.choice((9, 600, len(data) or 1)))))
    for at in range(start, min(len(data), start + rng.choice((1, 1, 2, 8)))):
        changed[at] = rng.choice((0, 0x7F, 0xFF, 0x22, 0x7B, 0x5D, rng.randrange(256)))
    return bytes(changed)


def _length_changed(rng: random.Random, data: bytes) -> bytes:
    length = rng.choice((0, 1, len(data), len(data) - 8, 2**20, 2**40, 2**63, 2**64 - 1, rng.randrange(len(data) + 9)))
    return struct.pack("<Q", max(0, length)) + data[8:]


def _cut_or_longer(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.6:
        return data[: rng.randrange(len(data) + 1)]
    return data + rng.randbytes(rng.choice((1, 8, 1000)))


def _values_changed(rng: random.Random, data: bytes) -> bytes:
    if len(data) < 24:
        return data
    body = 8 + int.from_bytes(data[:8], "little")
    at = rng.randrange(body if body < len(data) - 8 else 8, len(data) - 8)
    poison = rng.choice((b"\x00\x7c", b"\x00\x7e", b"\x00\x00\xc0\x7f", b"\xff" * 8, b"\x00" * 16, rng.randbytes(32)))
    return data[:at] + poison + data[at + len(poison) :]


def _entry_changed(rng: random.Random, data: bytes) -> bytes:
    found = _split(data)
    if found is None:
        return data
    header, body = found
    name = rng.choice(sorted(header)) if header else "x"
    entry = header.get(name)
    if not isinstance(entry, dict) or not isinstance(entry.get("shape"), list) or rng.random() < 0.15:
        header[name] = rng.choice((None, 1, "x", [], {}, [[]], {"dtype": "F32"}, {"shape": [1]}))
        return _joined(header, body)
    field = rng.choice(("dtype", "shape", "data_offsets", "drop", "extra"))
    if field == "dtype":
        entry["dtype"] = rng.choice(_DTYPES)
    elif field == "drop":
        entry.pop(rng.choice(sorted(entry)))
    elif field == "extra":
        entry[rng.choice(_WORDS)] = rng.choice(_NUMBERS)
    else:
        values = entry.get(field)
        values = list(values) if isinstance(values, list) else []
        if values and rng.random() < 0.7:
            old = values[at := rng.randrange(len(values))]
            values[at] = (
                old + rng.choice((-2, -1, 1, 2, 4))
                if isinstance(old, int) and rng.random() < 0.6
                else rng.choice(_NUMBERS)
            )
        else:
            values = rng.choice(([], [1], values * 2, values[::-1], [0] * 40, [rng.choice(_NUMBERS)] * 2))
        entry[field] = values
    return _joined(header, body)


def _shape_changed(rng: random.Random, data: bytes) -> bytes:
    """Another shape of as many values, which the container allows."""
    found = _split(data)
    names = [] if found is None else [n for n, e in found[0].items() if isinstance(e, dict) and _sizes(e.get("shape"))]
    if found is None or not names:
        return data
    header, body = found
    shape = header[rng.choice(names)]["shape"]
    shape[:] = rng.choice(
        (
            shape[::-1],
            [math.prod(shape)],
            [*shape, 1],
            [1, *shape],
            [*shape, 1, 1],
            shape[1:] + shape[:1],
            [1, 1, *shape],
        )
    )
    return _joined(header, body)


def _sizes(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) > 1 and all(type(size) is int for size in shape)


def _key_changed(rng: random.Random, data: bytes) -> bytes:
    found = _split(data)
    if found is None or not found[0]:
        return data
    header, body = found
    name = rng.choice(sorted(header))
    stem, _, part = name.partition(".")
    word = rng.choice(_WORDS)
    header[rng.choice((word, stem + word, name + word, word + name, f"{word}.{part}", name[:-1]))] = header.pop(name)
    return _joined(header, body)


def _key_doubled(rng: random.Random, data: bytes) -> bytes:
    found = _split(data)
    if found is None or not found[0]:
        return data
    header, body = found
    name = rng.choice(sorted(header))
    entry = json.dumps({name: header[name]})[1:-1]
    if rng.random() < 0.5:
        return _joined(None, body, f"{{{entry}, {json.dumps(header)[1:]}")
    other = (
        name.replace("lora_te1_", "lora_te_").replace("lora_A", "lora.down").replace("_conv_in", "_input_blocks_0_0")
    )
    header[other] = header[name]
    return _joined(header, body)


def _metadata_changed(rng: random.Random, data: bytes) -> bytes:
    found = _split(data)
    if found is None:
        return data
    header, body = found
    metadata = header.get("__metadata__")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    kind = rng.random()
    if kind < 0.5:
        metadata["lora_adapter_metadata"] = rng.choice(_CONFIGS)
    elif kind < 0.8:
        metadata[rng.choice(_WORDS)] = rng.choice((*_WORDS, *_NUMBERS))
    header["__metadata__"] = metadata if kind < 0.9 else rng.choice((None, [], "x", 1, {"a": {"b": []}}))
    return _joined(header, body)


def _hostile_header(rng: random.Random, data: bytes) -> bytes:
    size = rng.choice((1_000, 200_000))
    text = rng.choice(
        (
            "[" * size, '{"a":' * size, "{" + '"a":[],' * (size // 8), "[" + "[]," * (size // 3),
            '{"' + "a" * size + '":1}',
            '{"a":' + "9" * size + "}", " " * size, '{"a":"' + "\\ud800" * (size // 6) + '"}', "\ufeff{}", "{}", "null",
        )
    )  # fmt: skip
    return _joined(None, data[-64:], text)


# What only breaks the container is rare, so that most files reach the readers of formats.
_MUTATIONS: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    *(_bytes_changed, _length_changed, _cut_or_longer, _hostile_header),
    *(_values_changed,) * 5,
    *(_entry_changed,) * 2,
    *(_shape_changed,) * 3,
    *(_key_changed,) * 6,
    *(_key_doubled,) * 2,
    *(_metadata_changed,) * 6,
)
