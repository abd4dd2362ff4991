"""A base with an adapter merged into it: a diffusers folder that any tool loads without knowing of adapters.

The base's folder is copied, then each changed weight is rewritten in place in its own type, so memory stays at the
size of one tensor and all other bytes are the base's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from terroir.common.base_digest import SECOND_TEXT_ENCODER, weight_file
from terroir.exports.errors import ExportFailed
from terroir.exports.staging import staged
from terroir.exports.version import ExportedVersion
from terroir.lora.adapter import Array, Module
from terroir.lora.base_folder import BaseContent, read_base_folder, weight_bytes
from terroir.lora.errors import LoraError
from terroir.lora.formats import parse

OnProgress = Callable[[str, int, int], None]
"""Hears the step, how much of it is done, and how much there is."""

_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_CHANGED: Final = ("unet", "text_encoder", SECOND_TEXT_ENCODER)
_WEIGHTS: Final = frozenset({".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx"})
"""Endings of weight files. Beside the merged ones, others would still hold the base alone, and `variant="fp16"` or a
WebUI would load them in silence."""


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
    on_progress: OnProgress = lambda _step, _done, _all: None,
) -> None:
    """Write `base_folder` with `weight` times the adapter's change into a new folder.

    Other copies of the changed weights (variants, pickles, single-file checkpoints) are left out. Raises
    BaseFolderInvalid, or ExportFailed if the base is not the one that the adapter was trained on, the adapter does not
    fit it, or a sum leaves the range of the base's type.
    """
    base = _checked_base(version, base_folder, on_progress)
    try:
        modules = parse(version.file, base.layers).adapter.modules
    except LoraError as error:
        raise ExportFailed(f"{version.name} does not fit {base_folder}: {error}", reason=error.reason) from error
    with staged(target) as folder:
        _copy(base_folder, folder, on_progress)
        done = 0
        for component in _CHANGED:
            layers = {name: each for name, each in modules.items() if name.startswith(f"{component}.")}
            if not layers:
                continue
            path = weight_file(folder / component)
            header = _read_header(path)
            with path.open("r+b") as file:
                for name, module in sorted(layers.items()):
                    _rewrite(file, name, _tensor_of(header, name.partition(".")[2]), module, weight)
                    done += 1
                    on_progress("merge", done, len(modules))


def _checked_base(version: ExportedVersion, base_folder: Path, on_progress: OnProgress) -> BaseContent:
    size, read = weight_bytes(base_folder), 0

    def on_bytes(count: int) -> None:
        nonlocal read
        read += count
        on_progress("check the base", read, size)

    base = read_base_folder(base_folder, on_bytes)
    if base.digest != version.base_digest:
        raise ExportFailed(
            f"{version.name} was trained on {version.base} with digest {version.base_digest[:12]}, {base_folder} has "
            f"{base.digest[:12]}; name the folder of that base",
            reason="EXPORT_BASE_MISMATCH",
        )
    return base


def _copy(base_folder: Path, folder: Path, on_progress: OnProgress) -> None:
    """Contents only: a base may be read-only, and the hub's cache is made of links."""
    files = [path for path in _files(base_folder) if _is_kept(path, base_folder)]
    size, copied = sum(path.stat().st_size for path in files), 0
    for path in files:
        copy = folder / path.relative_to(base_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copied += path.stat().st_size
        on_progress("copy", copied, size)


def _files(base_folder: Path) -> list[Path]:
    # pathlib's own walk would not enter linked component folders.
    return [Path(where) / name for where, _, names in os.walk(base_folder, followlinks=True) for name in sorted(names)]


def _is_kept(path: Path, base_folder: Path) -> bool:
    *folders, name = path.relative_to(base_folder).parts
    if any(part.startswith(".") for part in (*folders, name)):
        return False
    if folders and folders[0] not in _CHANGED:
        return True
    is_merged = len(folders) == 1 and path == weight_file(path.parent)
    return is_merged or not (path.suffix in _WEIGHTS or name.endswith(".index.json"))


def _read_header(path: Path) -> dict[str, _Tensor]:
    """Of a file that `read_base_folder` has checked."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
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


def _rewrite(file: BinaryIO, layer: str, tensor: _Tensor, module: Module, weight: float) -> None:
    if tensor.dtype not in _TYPES:
        raise ExportFailed(
            f"{layer} of the base is of type {tensor.dtype}; merging knows {', '.join(_TYPES)}: name the unquantised "
            "base",
            reason="EXPORT_BASE_INVALID",
        )
    file.seek(tensor.start)
    base = _as_float(file.read(tensor.size), tensor.dtype).reshape(tensor.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        merged = base + np.float32(weight) * module.change_of(base)
        stored = _as_stored(merged, tensor.dtype)
    # Both: rounding NaN to bfloat16 by its bits can give a number.
    if not (np.isfinite(merged).all() and np.isfinite(_as_float(stored, tensor.dtype)).all()):
        raise ExportFailed(
            f"{layer} with {weight:g} times the adapter leaves the range of {tensor.dtype}; choose a smaller --weight, "
            "or a base of wider type",
            reason="EXPORT_NOT_FINITE",
        )
    file.seek(tensor.start)
    file.write(stored)


def _as_float(stored: bytes, dtype: str) -> Array:
    values: Any = np.frombuffer(stored, dtype=_TYPES[dtype])
    if dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
        return np.asarray((values.astype("<u4") << 16).view("<f4"))
    return np.asarray(values.astype(np.float32))


def _as_stored(values: Array, dtype: str) -> bytes:
    if dtype == "BF16":  # to the nearest, ties to even, as torch rounds
        bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype(_TYPES[dtype]).tobytes()
