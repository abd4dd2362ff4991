"""Receives an upload: bounded, on disk once it is large, and believed only when size and digest agree."""

from __future__ import annotations

import hashlib
import tempfile
from types import TracebackType
from typing import Final

from terroir.registry.errors import UploadInvalid

MAX_CHUNK_BYTES: Final = 1024 * 1024
_MEMORY_BYTES: Final = 8 * 1024 * 1024
"""Uploads beyond this wait in a temporary file, so that many slow publishers don't fill the memory."""


class Upload:
    """One upload; leaving the context drops its bytes."""

    def __init__(self, size_bytes: int, digest: str) -> None:
        self._announced = size_bytes
        self._digest = digest
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 (closed by __exit__)
        self._hash = hashlib.sha256()
        self._received = 0

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; raises UploadInvalid for a bad chunk, or as soon as they are more than announced."""
        if not 1 <= len(chunk) <= MAX_CHUNK_BYTES:
            raise UploadInvalid(
                f"chunk of {len(chunk)} bytes at offset {self._received}; send 1 to {MAX_CHUNK_BYTES} bytes a message",
                reason="CHUNK_SIZE_INVALID",
                field="chunk",
            )
        self._received += len(chunk)
        if self._received > self._announced:
            raise self._wrong_size("at least ")
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self) -> bytes:
        """All bytes; raises UploadInvalid if they are not what was announced."""
        if self._received != self._announced:
            raise self._wrong_size("")
        if self._hash.hexdigest() != self._digest:
            raise UploadInvalid(
                f"the file arrived with SHA-256 {self._hash.hexdigest()}, the header announced {self._digest}: "
                "it was damaged on the way or the digest is of another file; publish again",
                reason="UPLOAD_DIGEST_MISMATCH",
                field="header.file_digest",
            )
        self._file.seek(0)
        return self._file.read()

    def _wrong_size(self, qualifier: str) -> UploadInvalid:
        return UploadInvalid(
            f"the stream carried {qualifier}{self._received} bytes, the header announced {self._announced}; "
            "publish the whole file again with its size",
            reason="UPLOAD_SIZE_MISMATCH",
            field="header.size_bytes",
        )
