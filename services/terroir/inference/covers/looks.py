"""What covers wear: a recipe with its names resolved, so that its digest says whether two covers look alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Worn:
    """An adapter of a look."""

    version: str
    """`adapters/{id}/versions/{number}`."""
    file_digest: str
    weight: float


@dataclass(frozen=True)
class Look:
    """A resolved style on a base. Two regions with one look share their covers."""

    base_digest: str
    adapters: tuple[Worn, ...] = ()
    prompt_prefix: str = ""
    negative_prompt: str = ""
    """For contents that bring none."""

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, of the base, the adapters' digests and weights in their order, and the words."""
        worn = [[each.file_digest, each.weight] for each in self.adapters]
        told = [self.base_digest, worn, self.prompt_prefix, self.negative_prompt]
        return hashlib.sha256(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Look:
        """Inverse of `to_body`; raises TypeError or KeyError for anything else."""
        return Look(**{**body, "adapters": tuple(Worn(**each) for each in body["adapters"])})
