"""What exports need to know of a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ExportedPreset:
    """One way of using the adapter."""

    display_name: str
    trigger_words: tuple[str, ...] = ()
    prompt_template: str = ""
    negative_prompt: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class ExportedRecipe:
    """A saved recipe in which the adapter stands."""

    display_name: str
    adapters: tuple[tuple[str, float], ...]
    """Identifiers, with `@alias` or `/versions/{n}` where the recipe has them, and weights."""
    prompt_prefix: str = ""
    negative_prompt: str = ""


@dataclass(frozen=True)
class ExportedVersion:
    """A version and its kohya file."""

    name: str
    """`adapters/{id}/versions/{number}`."""
    file: bytes
    file_digest: str
    tensor_digest: str
    base: str
    """`bases/{id}`."""
    base_digest: str
    family: str
    """`sd15` or `sdxl`."""
    created_at: str
    """RFC 3339, UTC."""
    rank: int = 0
    trigger_word: str = ""
    description: str = ""
    region: str = ""
    tags: tuple[str, ...] = ()
    lineage: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    """SPDX expression; empty if unknown."""
    presets: tuple[ExportedPreset, ...] = ()
    """The first is the default."""
    recipes: tuple[ExportedRecipe, ...] = ()

    @property
    def adapter(self) -> str:
        """Identifier of the adapter."""
        return self.name.split("/")[1]

    @property
    def number(self) -> int:
        """Number of the version."""
        return int(self.name.rsplit("/", 1)[1])

    @property
    def stem(self) -> str:
        """File name without its ending, the same for all files of an export."""
        return f"{self.adapter}-v{self.number}"
