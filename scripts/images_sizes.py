"""How large an image is: unpacked on a node's disk, packed as a node pulls it, above its base, and by package."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Final

from scripts.images_build import layers
from scripts.images_engine import Engine, ImagesError

_GZIP: Final = 31
"""zlib's window bits for gzip; level 6 is what registries' clients use."""
_CHUNK: Final = 1 << 20


@dataclass
class Layer:
    """One layer of an image."""

    digest: str
    """Of its content, as the image's configuration names it."""
    unpacked_bytes: int = 0
    """Content of its files."""
    packed_bytes: int = 0
    """As a gzip stream."""
    packages: Counter[str] = field(default_factory=Counter)
    """Bytes by package, or by folder of the root."""


@dataclass(frozen=True)
class ImageSize:
    """Layers of an image; the lowest ones are its base's."""

    image: str
    base: tuple[Layer, ...]
    above: tuple[Layer, ...]

    @property
    def unpacked_above(self) -> int:
        """Bytes on disk above the base."""
        return sum(layer.unpacked_bytes for layer in self.above)

    @property
    def packed_above(self) -> int:
        """Bytes to pull where the base is there."""
        return sum(layer.packed_bytes for layer in self.above)

    @property
    def unpacked(self) -> int:
        """Bytes on disk."""
        return self.unpacked_above + sum(layer.unpacked_bytes for layer in self.base)

    @property
    def packed(self) -> int:
        """Bytes to pull."""
        return self.packed_above + sum(layer.packed_bytes for layer in self.base)

    def packages(self) -> Counter[str]:
        """Bytes by package above the base."""
        total: Counter[str] = Counter()
        for layer in self.above:
            total.update(layer.packages)
        return total


def measure(engine: Engine, image: str, base: str, known: dict[str, Layer]) -> ImageSize:
    """Read the whole image once, but for layers that are `known` by their digest; it adds those that it reads.

    Raises ImagesError if the image is missing or stands on another base.
    """
    order, beneath = layers(engine, image), layers(engine, base)
    if order[: len(beneath)] != beneath:
        raise ImagesError(f"{image} was not built on this {base}; build it again")
    known.update({layer.digest: layer for layer in _read(engine, image, known)})
    every = tuple(known[digest] for digest in order)
    return ImageSize(image, every[: len(beneath)], every[len(beneath) :])


def _read(engine: Engine, image: str, known: Mapping[str, Layer]) -> Iterator[Layer]:
    command = [engine.name, "save", image]
    with subprocess.Popen(
        command, env=engine.all_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                named = f"sha256:{PurePosixPath(member.name).name.removesuffix('.tar')}"  # Podman names them so
                packed = archive.extractfile(member) if member.isreg() and named not in known else None
                if packed is not None and not member.name.endswith(".json"):
                    layer = _layer(packed)
                    if layer is not None:
                        yield layer
    if process.returncode:
        raise ImagesError(f"{engine.name} save {image} failed with status {process.returncode}")


class _Counting:
    """A file object that sees what goes through it."""

    def __init__(self, source: IO[bytes], first: bytes) -> None:
        self._source, self._ahead = source, first
        self._inflate = zlib.decompressobj(_GZIP) if first.startswith(b"\x1f\x8b") else None
        self._deflate = zlib.compressobj(6, wbits=_GZIP)
        self._digest = hashlib.sha256()
        self.packed_bytes = 0

    def read(self, size: int) -> bytes:
        """Content of the layer, unpacked; as much as one chunk of the source holds."""
        del size
        chunk = self._next()
        self._digest.update(chunk)
        self.packed_bytes += len(self._deflate.compress(chunk))
        return chunk

    def _next(self) -> bytes:
        while True:
            chunk, self._ahead = self._ahead or self._source.read(_CHUNK), b""
            if self._inflate is None or not chunk:
                return chunk
            if chunk := self._inflate.decompress(chunk):  # the header alone yields nothing
                return chunk

    def finish(self) -> str:
        """Read the rest; the digest of everything."""
        while self.read(_CHUNK):
            pass
        self.packed_bytes += len(self._deflate.flush())
        return f"sha256:{self._digest.hexdigest()}"


class _Exact:
    """Reads as much as it is asked for, as a tar stream needs."""

    def __init__(self, counting: _Counting) -> None:
        self._counting, self._held = counting, b""

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the end."""
        while len(self._held) < size:
            chunk = self._counting.read(size)
            if not chunk:
                break
            self._held += chunk
        given, self._held = self._held[:size], self._held[size:]
        return given


def _layer(packed: IO[bytes]) -> Layer | None:
    """A layer, or None for another file of the archive."""
    counting = _Counting(packed, packed.read(_CHUNK))
    layer = Layer("")
    try:
        with tarfile.open(fileobj=_Exact(counting), mode="r|") as content:  # type: ignore[call-overload]
            for member in content:
                layer.unpacked_bytes += member.size
                layer.packages[_package(member.name)] += member.size
    except tarfile.ReadError:
        return None
    layer.digest = counting.finish()
    layer.packed_bytes = counting.packed_bytes
    return layer


def _package(path: str) -> str:
    parts = path.removeprefix("./").strip("/").split("/")
    if "site-packages" in parts and len(parts) > parts.index("site-packages") + 1:
        return parts[parts.index("site-packages") + 1].removesuffix(".libs")
    return f"/{parts[0]}"
