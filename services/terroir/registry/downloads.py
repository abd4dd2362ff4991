"""Adapter files on their way out, in pieces, proved by digest before the last piece leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from terroir.registry.adapters import Adapters
from terroir.registry.names import VersionRef
from terroir.registry.versions import StoredFile, Version
from terroir.store.blobs import Blobs

CHUNK_BYTES: Final = 512 * 1024


class AdapterFormat(StrEnum):
    """Spellings of an adapter file that are kept."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"


@dataclass(frozen=True)
class Download:
    """One file of a version."""

    version: Version
    file_name: str
    file: StoredFile
    chunks: Iterator[bytes]
    """Raises CorruptBlob before the end if the stored bytes are not those that were published."""


class Downloads:
    """Opens stored files."""

    def __init__(self, adapters: Adapters, blobs: Blobs) -> None:
        self._adapters = adapters
        self._blobs = blobs

    def open(self, reference: VersionRef, adapter_format: AdapterFormat) -> Download:
        """The file of a version; raises as `Adapters.resolve` does."""
        version = self._adapters.resolve(reference)
        if adapter_format is AdapterFormat.DIFFUSERS:
            file, file_name = version.manifest.diffusers, "pytorch_lora_weights.safetensors"
        else:
            file, file_name = version.manifest.kohya, f"{version.adapter}-v{version.number}.safetensors"
        return Download(version, file_name, file, self._blobs.iter_chunks(file.digest, CHUNK_BYTES))
