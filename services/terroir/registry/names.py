"""Resource names of the registry: parsed once at the edge, never joined into paths unparsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_name

_IDENTIFIER: Final = "[a-z][a-z0-9-]{0,62}"
_REFERENCE: Final = re.compile(f"adapters/({_IDENTIFIER})(?:/versions/([1-9][0-9]{{0,8}})|@({_IDENTIFIER}))?")


@dataclass(frozen=True)
class VersionRef:
    """What a caller wrote for a version: a number, an alias, or neither, which means the newest."""

    adapter: str
    number: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.number is not None:
            return version_name(self.adapter, self.number)
        return adapter_name(self.adapter) + (f"@{self.alias}" if self.alias is not None else "")


def adapter_name(adapter: str) -> str:
    """`adapters/{id}`."""
    return f"adapters/{adapter}"


def version_name(adapter: str, number: int) -> str:
    """`adapters/{id}/versions/{number}`."""
    return f"adapters/{adapter}/versions/{number}"


def base_name(base: str) -> str:
    """`bases/{id}`."""
    return f"bases/{base}"


def region_name(code: str) -> str:
    """`regions/{code}`."""
    return f"regions/{code}"


def recipe_name(recipe: str) -> str:
    """`recipes/{id}`."""
    return f"recipes/{recipe}"


def parse_adapter(name: str, field: str = "name") -> str:
    """The id in `adapters/{id}`; raises InvalidArgument (INVALID_NAME)."""
    return ensure_name(name, field, "adapters/{id}")["id"]


def parse_base(name: str, field: str = "name") -> str:
    """The id in `bases/{id}`; raises InvalidArgument (INVALID_NAME)."""
    return ensure_name(name, field, "bases/{id}")["id"]


def parse_region(name: str, field: str = "name") -> str:
    """The code in `regions/{code}`; raises InvalidArgument (INVALID_NAME)."""
    return ensure_name(name, field, "regions/{code}")["code"]


def parse_recipe(name: str, field: str = "name") -> str:
    """The id in `recipes/{id}`; raises InvalidArgument (INVALID_NAME)."""
    return ensure_name(name, field, "recipes/{id}")["id"]


def parse_version(name: str, field: str = "version") -> tuple[str, int]:
    """Adapter and number in `adapters/{id}/versions/{number}`; raises InvalidArgument (INVALID_NAME)."""
    parts = ensure_name(name, field, "adapters/{id}/versions/{number}")
    return parts["id"], int(parts["number"])


def parse_reference(name: str, field: str = "name") -> VersionRef:
    """A version by number, by alias, or the newest; raises InvalidArgument (INVALID_NAME)."""
    match = _REFERENCE.fullmatch(name)
    if match is None:
        raise InvalidArgument(
            f"{field} {name[:80]!r} names no version: write adapters/{{id}}, adapters/{{id}}@{{alias}} or "
            "adapters/{id}/versions/{number}",
            reason="INVALID_NAME",
            field=field,
        )
    return VersionRef(match[1], int(match[2]) if match[2] else None, match[3])
