"""Layouts of published adapter files, keys and shapes only, and the key tables of the bases that they are for.

`tests/fixtures/lora/layout_*.json.gz` say in `source` which program named the keys: sd-scripts' own `LoRANetwork` run
over models without weights, PEFT and diffusers; ranks are small because only they are free. `key_table_*.json.gz` are
Stable Diffusion 1.5 and SDXL at full width (tests/contract/lora/test_key_tables.py makes them again).
"""

from __future__ import annotations

import gzip
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from terroir.lora.key_table import KeyTable

FOLDER: Final = Path(__file__).parents[2] / "fixtures" / "lora"
LAYOUTS: Final = tuple(sorted(path.name[7:-8] for path in FOLDER.glob("layout_*.json.gz")))


def key_table(family: str) -> KeyTable:
    """Every layer of `sd15` or `sdxl` with its weight's shape."""
    return {layer: tuple(shape) for layer, shape in _load(f"key_table_{family}").items()}


def layout(name: str) -> dict[str, tuple[int, ...]]:
    """Key → shape of one layout."""
    return {key: tuple(shape) for key, shape in _load(f"layout_{name}")["tensors"].items()}


def family_of(name: str) -> str:
    """Base that a layout is for."""
    return "sdxl" if "sdxl" in name else "sd15"


def file_of(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A float16 file with these keys; alphas are 1, all other values 2^-8."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {})}
    parts, offset = [], 0
    for key, shape in sorted(shapes.items()):
        part = (b"\x00\x3c" if shape == () else b"\x00\x1c") * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + b"".join(parts)


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return loaded
