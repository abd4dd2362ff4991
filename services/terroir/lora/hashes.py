"""Digests by which model sites and other tools name an adapter file."""

from __future__ import annotations

import hashlib
import struct
from typing import Final

_LEGACY_START: Final = 0x100000
_LEGACY_BYTES: Final = 0x10000


def site_hashes(data: bytes, *, file_digest: str = "", body_digest: str = "") -> dict[str, str]:
    """Names and hexadecimal digests of a safetensors file.

    * `autov2`: first 10 digits of its SHA-256 (Civitai; A1111's short hash).
    * `kohya`: SHA-256 of all bytes behind the header (sd-scripts `sshs_model_hash`), so a changed header keeps it.
    * `autov3`: first 12 digits of `kohya` (Civitai).
    * `autov1`: first 8 digits of the SHA-256 of 64 KiB from 1 MiB on (A1111's old hash); left out of shorter files,
      which would all have the same.

    `file_digest` and `body_digest`, if known, spare the two long passes: SHA-256 of the file, and what `kohya` is.
    """
    header_bytes = struct.unpack_from("<Q", data)[0]
    behind = body_digest or hashlib.sha256(memoryview(data)[8 + header_bytes :]).hexdigest()
    found = {"autov2": (file_digest or hashlib.sha256(data).hexdigest())[:10], "autov3": behind[:12], "kohya": behind}
    if len(data) > _LEGACY_START:
        part = memoryview(data)[_LEGACY_START : _LEGACY_START + _LEGACY_BYTES]
        found["autov1"] = hashlib.sha256(part).hexdigest()[:8]
    return found
