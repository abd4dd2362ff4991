"""Reads an uploaded adapter file against its base."""

from __future__ import annotations

from typing import Final

import numpy as np

from terroir.lora.adapter import LoraModule
from terroir.lora.errors import LoraError
from terroir.lora.formats import Parsed, parse
from terroir.lora.key_table import KeyTable
from terroir.registry.errors import AdapterFileInvalid

BASE_DIGEST_KEY: Final = "terroir.base_digest"
"""Entry of the file's metadata that ties it to its base also outside the registry."""


def read_adapter_file(data: bytes, key_table: KeyTable) -> Parsed:
    """Parse and check every tensor; raises AdapterFileInvalid with the reason code of `terroir.lora.errors`."""
    try:
        parsed = parse(data, key_table)
    except LoraError as error:
        metadata = {"key": error.key[:256]} if error.key else {}
        raise AdapterFileInvalid(str(error), reason=error.reason, metadata=metadata) from error
    for layer, module in parsed.adapter.modules.items():
        _ensure_writable(layer, module)
    return parsed


def _ensure_writable(layer: str, module: LoraModule) -> None:
    """Refuse an alpha that is finite in the header of the upload, but not in the float32 files that are kept."""
    largest = max(1.0, float(np.abs(module.up).max())) * abs(module.scale) * module.rank
    if not largest <= float(np.finfo(np.float32).max):
        raise AdapterFileInvalid(
            f"{layer}: alpha {module.alpha:g} does not fit 32-bit floats; save the adapter again with a usual alpha",
            reason="ADAPTER_NOT_FINITE",
            metadata={"key": layer},
        )
