"""Adapter files on their way out, in pieces, proved by digest before the last piece leaves.

Only the kohya file is kept. The diffusers file is made from it for each download: it holds the same tensors, and a
second copy in the store would double what publishing sends and keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from terroir.lora.errors import UnsupportedAdapter
from terroir.lora.formats import parse, to_diffusers
from terroir.registry.adapters import Adapters
from terroir.registry.bases.bases import Bases
from terroir.registry.errors import FormatUnavailable, TrainingPrintNotFound
from terroir.registry.names import VersionRef
from terroir.registry.versions import StoredFile, Version
from terroir.store.blobs import Blobs

CHUNK_BYTES: Final = 1024 * 1024
"""Of a message."""
READ_BYTES: Final = 8 * CHUNK_BYTES
"""Of a request to the store, where each costs more than a megabyte does: 6.3 MB on MinIO take 13 ms instead of 40."""


class AdapterFormat(StrEnum):
    """Spellings in which an adapter file is had."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"


@dataclass(frozen=True)
class Download:
    """One file of a version."""

    version: Version
    file_name: str
    file: StoredFile
    parts: Iterator[bytes]
    """Of up to READ_BYTES. Raises CorruptBlob before the end if stored bytes are not those that were published."""

    @property
    def chunks(self) -> Iterator[bytes]:
        """The same in messages' sizes."""
        for part in self.parts:
            yield from chunks_of(part)


class Downloads:
    """Opens stored files."""

    def __init__(self, adapters: Adapters, bases: Bases, blobs: Blobs) -> None:
        self._adapters = adapters
        self._bases = bases
        self._blobs = blobs

    def open(self, reference: VersionRef, adapter_format: AdapterFormat) -> Download:
        """The file of a version; raises as `Adapters.resolve` does, and FormatUnavailable.

        DIFFUSERS takes a tenth of a second and about six times the file's memory: keep it off an event loop.
        """
        version = self._adapters.resolve(reference)
        if adapter_format is AdapterFormat.DIFFUSERS:
            data = self._diffusers_file(version)
            file = StoredFile(hashlib.sha256(data).hexdigest(), len(data))
            return Download(version, "pytorch_lora_weights.safetensors", file, iter([data]))
        file, file_name = version.manifest.kohya, f"{version.adapter}-v{version.number}.safetensors"
        return Download(version, file_name, file, self._blobs.iter_chunks(file.digest, READ_BYTES, file.size_bytes))

    def training_print(self, reference: VersionRef) -> tuple[Version, bytes]:
        """A version and its print; raises as `Adapters.resolve` does, TrainingPrintNotFound, and CorruptBlob."""
        version = self._adapters.resolve(reference)
        kept = version.manifest.training_print
        if kept is None:
            raise TrainingPrintNotFound(
                f"{version.name} has no training print: it was not trained here, or no CLIP was set that knows its "
                "base (docs/judging.md says when one is made)",
                metadata={"version": version.name},
            )
        return version, self._blobs.get(kept.digest)

    def _diffusers_file(self, version: Version) -> bytes:
        table = self._bases.key_table(self._bases.get(version.manifest.base))
        adapter = parse(self._blobs.get(version.manifest.kohya.digest), table).adapter
        try:
            return to_diffusers(adapter)
        except UnsupportedAdapter as error:
            raise FormatUnavailable(f"{version.name}: {error}", metadata={"version": version.name}) from error


def chunks_of(part: bytes) -> Iterator[bytes]:
    """A part in messages' sizes."""
    return (part[at : at + CHUNK_BYTES] for at in range(0, len(part), CHUNK_BYTES))
