"""Reads an uploaded adapter file against its base, and writes the two files that a version keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from terroir.lora.adapter import Adapter
from terroir.lora.formats import Parsed, parse, to_diffusers, to_kohya

BASE_DIGEST_KEY: Final = "terroir.base_digest"
"""Entry of the file's metadata that ties it to its base also outside the registry."""


@dataclass(frozen=True)
class AdapterFile:
    """A checked adapter: every kept tensor has the base's shape and finite values."""

    adapter: Adapter
    upload_format: str
    ignored: tuple[tuple[str, str], ...]
    """(key as in the upload, why it was left out)."""
    base_digest: str
    """Of the base that the file says it was made for; empty where it says nothing."""

    @property
    def matched_layers(self) -> int:
        """Layers of the base that it changes."""
        return len(self.adapter.modules)

    @property
    def rank(self) -> int:
        """Largest rank of its modules."""
        return max(module.down.shape[0] for module in self.adapter.modules.values())

    @property
    def tensor_digest(self) -> str:
        """SHA-256 (hex) over layer paths, shapes, alphas and little-endian float32 factors, by layer path."""
        digest = hashlib.sha256()
        for path, module in sorted(self.adapter.modules.items()):
            digest.update(f"{path} {module.down.shape} {module.up.shape} {float(module.alpha)!r}\n".encode())
            for factor in (module.down, module.up):
                digest.update(np.ascontiguousarray(factor, dtype="<f4").tobytes())
        return digest.hexdigest()

    def kohya(self, metadata: Mapping[str, str]) -> bytes:
        """The file that is a version's identity."""
        return to_kohya(self.adapter, metadata)

    def diffusers(self) -> bytes:
        """The same in the spelling of diffusers."""
        return to_diffusers(self.adapter)


def read_adapter_file(data: bytes, key_table: Mapping[str, tuple[int, ...]]) -> AdapterFile:
    """Parse and check; raises the InvalidArgument that `terroir.lora` has for what is wrong with the file."""
    parsed: Parsed = parse(data, key_table)
    ignored = tuple((entry.key, entry.reason) for entry in parsed.ignored)
    return AdapterFile(parsed.adapter, parsed.format, ignored, parsed.metadata.get(BASE_DIGEST_KEY, ""))
