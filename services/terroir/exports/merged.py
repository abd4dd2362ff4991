"""A base with an adapter merged into it: a diffusers folder that any tool loads without knowing of adapters.

The base's folder is copied, then each changed weight is rewritten in place in its own type, so memory stays at the
size of one tensor and all other bytes are the base's.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from terroir.common.base_digest import WEIGHT_FILES, base_digest, component_digests
from terroir.exports.errors import ExportFailed
from terroir.exports.staging import staged
from terroir.exports.version import ExportedVersion
from terroir.lora.adapter import Array, LoraModule
from terroir.lora.formats import parse
from terroir.lora.key_table import key_table_of

_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_COMPONENTS: Final = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    start: int
    """In the file."""
    size: int


def export_merged(
    version: ExportedVersion,
    base_folder: Path,
    target: Path,
    *,
    weight: float = 1.0,
    on_layer: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Write `base_folder` with `weight` times the adapter's change into a new folder.

    Raises ExportFailed if the folder is no base or not the one that the adapter was trained on, LoraError if the file
    does not fit it. `on_layer` hears how many layers of how many are done.
    """
    try:
        digest = base_digest(component_digests(base_folder))
        files = {part: _weight_file(base_folder / part) for part in _COMPONENTS if (base_folder / part).is_dir()}
        headers = {part: _read_header(path) for part, path in files.items()}
    except (OSError, ValueError, KeyError) as error:
        raise ExportFailed(
            f"{base_folder} is no diffusers folder with safetensors weights ({error}); name the base's folder",
            reason="EXPORT_BASE_INVALID",
        ) from error
    if digest != version.base_digest:
        raise ExportFailed(
            f"{version.name} was trained on {version.base} with digest {version.base_digest[:12]}, {base_folder} has "
            f"{digest[:12]}; name the folder of that base",
            reason="EXPORT_BASE_MISMATCH",
        )
    table = key_table_of(**{part: {key: each.shape for key, each in keys.items()} for part, keys in headers.items()})
    modules = parse(version.file, table).adapter.modules
    with staged(target) as folder:
        shutil.copytree(base_folder, folder, dirs_exist_ok=True)
        done = 0
        for part, path in files.items():
            with (folder / path.relative_to(base_folder)).open("r+b") as file:
                for layer, module in sorted(modules.items()):
                    component, _, inner = layer.partition(".")
                    if component == part:
                        _rewrite(file, _tensor_of(headers[part], inner), module, weight)
                        done += 1
                        on_layer(done, len(modules))


def _weight_file(component: Path) -> Path:
    for name in WEIGHT_FILES:
        if (component / name).is_file():
            return component / name
    raise FileNotFoundError(f"{component} holds none of {', '.join(WEIGHT_FILES)}")


def _read_header(path: Path) -> dict[str, _Tensor]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: Mapping[str, Any] = json.loads(file.read(length))
    return {
        key: _Tensor(
            entry["dtype"],
            tuple(entry["shape"]),
            8 + length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for key, entry in header.items()
        if key != "__metadata__"
    }


def _tensor_of(header: Mapping[str, _Tensor], path: str) -> _Tensor:
    # transformers 5 dropped this level from CLIPTextModel's names; adapters and the key table carry it.
    return header.get(f"{path}.weight") or header[f"{path.removeprefix('text_model.')}.weight"]


def _rewrite(file: BinaryIO, tensor: _Tensor, module: LoraModule, weight: float) -> None:
    if tensor.dtype not in _TYPES:
        raise ExportFailed(
            f"the base's weights are of type {tensor.dtype}; merging knows {', '.join(_TYPES)}",
            reason="EXPORT_BASE_INVALID",
        )
    file.seek(tensor.start)
    stored = np.frombuffer(file.read(tensor.size), dtype=_TYPES[tensor.dtype]).reshape(tensor.shape)
    base = _as_float(stored, tensor.dtype)
    merged = base + np.float32(weight) * module.change_of(base)
    file.seek(tensor.start)
    file.write(_as_stored(merged, tensor.dtype))


def _as_float(stored: Any, dtype: str) -> Array:
    if dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
        return np.asarray((stored.astype("<u4") << 16).view("<f4"))
    return np.asarray(stored.astype(np.float32))


def _as_stored(values: Array, dtype: str) -> bytes:
    if dtype == "BF16":  # to the nearest, ties to even, as torch rounds
        bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype(_TYPES[dtype]).tobytes()
