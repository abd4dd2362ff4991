"""Picture files for tests: drawn ones, and the bad ones that people really send."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from terroir.tiny.world.render import render
from terroir.tiny.world.scene import all_scenes


def drawn(index: int = 0, width: int = 64, height: int = 64) -> Image.Image:
    """A picture of the drawn world; another index is another scene."""
    scenes = all_scenes(held_out=False)
    return render(scenes[index * 37 % len(scenes)], np.random.default_rng(index), width=width, height=height)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def digest_of(data: bytes) -> str:
    """SHA-256 as the contract writes it."""
    return hashlib.sha256(data).hexdigest()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 16))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
