"""What inference asks of the registry, as values and a seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from terroir.common.signatures import Signature, SignedFacts


@dataclass(frozen=True)
class VersionInfo:
    """An immutable adapter version."""

    name: str
    """`adapters/{id}/versions/{number}`."""
    base: str
    base_digest: str
    file_digest: str
    size_bytes: int
    facts: SignedFacts
    """What its signature, if it has one, says beside the bytes."""
    signature: Signature | None = None
    withdrawn: str = ""
    """Why it must not be served any more; empty if it may."""


@dataclass(frozen=True)
class Recipe:
    """The style of a region."""

    adapters: tuple[tuple[str, float], ...]
    """Names with weights."""
    prompt_prefix: str
    negative_prompt: str
    """For requests that bring none."""
    tried: tuple[str, ...]
    """Regions that were asked, in order."""


class AdapterSource(Protocol):
    """The registry."""

    async def version(self, name: str) -> VersionInfo:
        """The version behind a name, an alias or `adapters/{id}` (the newest), as it is now; raises NotFound."""
        ...

    async def download(self, version: VersionInfo) -> bytes:
        """The kohya file of a version, not yet verified."""
        ...

    async def recipe(self, region: str) -> Recipe:
        """The recipe that applies to `regions/{code}`; raises NotFound."""
        ...
