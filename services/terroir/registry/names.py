"""Resource names of the registry: parsed once at the edge, never joined into paths unparsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from terroir.common.errors import InvalidArgument

_IDENTIFIER: Final = "[a-z][a-z0-9-]{0,62}"
_ALIAS: Final = re.compile(_IDENTIFIER)
_ADAPTER: Final = re.compile(f"adapters/({_IDENTIFIER})")
_BASE: Final = re.compile(f"bases/({_IDENTIFIER})")
_REGION: Final = re.compile("regions/([A-Z0-9][A-Za-z0-9-]{0,62})")
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


def parse_adapter(name: str, field: str = "name") -> str:
    """The id in `adapters/{id}`; raises InvalidArgument (INVALID_NAME)."""
    return _parse(_ADAPTER, name, field, "adapters/{id}, such as adapters/jiangnan")[1]


def parse_base(name: str, field: str = "name") -> str:
    """The id in `bases/{id}`; raises InvalidArgument (INVALID_NAME)."""
    return _parse(_BASE, name, field, "bases/{id}, such as bases/terroir-tiny")[1]


def parse_region(name: str, field: str = "name") -> str:
    """The code in `regions/{code}`; raises InvalidArgument (INVALID_NAME)."""
    return _parse(_REGION, name, field, "regions/{code}, such as regions/CN-ZJ")[1]


def parse_alias(alias: str, field: str = "alias") -> str:
    """An alias; raises InvalidArgument (INVALID_NAME)."""
    return _parse(_ALIAS, alias, field, "a small letter, then small letters, digits or '-', at most 63")[0]


def parse_reference(name: str, field: str = "name") -> VersionRef:
    """A version by number, by alias, or the newest; raises InvalidArgument (INVALID_NAME)."""
    match = _parse(_REFERENCE, name, field, "adapters/{id}, adapters/{id}@{alias} or adapters/{id}/versions/{number}")
    return VersionRef(match[1], int(match[2]) if match[2] else None, match[3])


def parse_version(name: str, field: str = "version") -> VersionRef:
    """A version by number only; raises InvalidArgument (INVALID_NAME)."""
    reference = parse_reference(name, field)
    if reference.number is None:
        raise _invalid(name, field, "adapters/{id}/versions/{number}")
    return reference


def _parse(pattern: re.Pattern[str], value: str, field: str, expected: str) -> re.Match[str]:
    match = pattern.fullmatch(value)
    if match is None:
        raise _invalid(value, field, expected)
    return match


def _invalid(value: str, field: str, expected: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {value[:120]!r} is no valid name; write {expected}", reason="INVALID_NAME", field=field)
