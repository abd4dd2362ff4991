"""What inference asks of the registry, as values and a seam."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
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
    training_print_digest: str = ""
    """Of what tells copies of the pictures that it was trained on; empty if it has none. No signature covers it."""


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
    source: str = ""
    """Region that has it; empty if none has any."""
    further: tuple[str, ...] = ()
    """Regions that the source lies in, nearest first."""


@dataclass(frozen=True)
class CanaryInfo:
    """A version that a share of an alias's callers gets."""

    version: str
    """`adapters/{id}/versions/{number}`."""
    percent: float
    expires_at: float | None
    """Seconds since 1970; None: never by itself."""


class AdapterSource(Protocol):
    """The registry."""

    async def version(self, name: str) -> VersionInfo:
        """The version behind a name, an alias or `adapters/{id}` (the newest), as it is now; raises NotFound."""
        ...

    async def download(self, version: VersionInfo) -> bytes:
        """The kohya file of a version, not yet verified."""
        ...

    async def training_print(self, version: VersionInfo) -> bytes | None:
        """What tells copies of a version's training pictures, its digest checked; None if it has none."""
        ...

    async def recipe(self, region: str) -> Recipe:
        """The recipe that applies to `regions/{code}`; raises NotFound."""
        ...


class ChangeKind(StrEnum):
    """What happened to a thing of the registry, as far as it matters here."""

    PUBLISHED = "published"
    """A version came to be."""
    ALIASES = "aliases"
    """Aliases of an adapter moved."""
    DEPRECATED = "deprecated"
    """A version was deprecated or reinstated."""
    REGION = "region"
    RECIPE = "recipe"
    OTHER = "other"


@dataclass(frozen=True)
class Change:
    """A message of the registry's watch."""

    resume_token: str
    """Where to go on after it."""
    kind: ChangeKind | None = None
    """None if nothing changed: the watch has begun, or it is still there."""
    name: str = ""
    """`adapters/{id}/versions/{number}`, `adapters/{id}`, `regions/{code}` or `recipes/{id}`."""


class ChangeSource(Protocol):
    """The registry's watch."""

    def changes(self, resume_token: str) -> AsyncGenerator[Change]:
        """Changes after the token, or from now on if it is empty, until the connection ends; raises a TerroirError.

        The first message says that the watch has begun; one without a change comes every 15 s.
        """
        ...
