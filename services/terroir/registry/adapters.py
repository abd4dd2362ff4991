"""Adapters: a series of versions and the aliases that point into it."""

from __future__ import annotations

from dataclasses import dataclass

from terroir.registry.aliases import Alias, Aliases, Move
from terroir.registry.names import VersionRef
from terroir.registry.paging import Page, page_of
from terroir.registry.versions import Version, Versions


@dataclass(frozen=True)
class Adapter:
    """What is known of an adapter as a whole."""

    adapter: str
    newest_version: int
    aliases: tuple[Alias, ...]
    """By name."""
    created_at: str
    """RFC 3339, UTC; of version 1."""


class Adapters:
    """Reads adapters, resolves references to versions, moves aliases."""

    def __init__(self, versions: Versions, aliases: Aliases) -> None:
        self._versions = versions
        self._aliases = aliases

    def get(self, adapter: str) -> Adapter:
        """One adapter; raises AdapterNotFound."""
        newest = self._versions.newest(adapter)
        table = self._aliases.table(adapter)
        first = newest if newest.number == 1 else self._versions.get(adapter, 1)
        return Adapter(adapter, newest.number, tuple(table[name] for name in sorted(table)), first.created_at)

    def page(self, page_size: int, page_token: str) -> Page[Adapter]:
        """Adapters by identifier."""
        return page_of(self._versions.adapters(), page_size, page_token, parse=str, load=self.get)

    def versions(self, adapter: str, page_size: int, page_token: str) -> Page[Version]:
        """Versions of an adapter, newest first; raises AdapterNotFound."""
        numbers = range(self._versions.newest(adapter).number, 0, -1)
        return page_of(
            numbers, page_size, page_token, parse=int, load=lambda number: self._versions.get(adapter, number)
        )

    def resolve(self, reference: VersionRef) -> Version:
        """The version that is meant; raises AdapterNotFound, VersionNotFound or AliasNotFound."""
        if reference.number is not None:
            return self._versions.get(reference.adapter, reference.number)
        newest = self._versions.newest(reference.adapter)
        if reference.alias is None:
            return newest
        number = self._aliases.get(reference.adapter, reference.alias).number
        return newest if number == newest.number else self._versions.get(reference.adapter, number)

    def set_alias(self, move: Move, *, op_id: str, etag: str = "") -> Alias:
        """Move an alias to an existing version; raises as `resolve` and `Aliases.move` do."""
        self._versions.get(move.adapter, move.number)
        return self._aliases.move(move, op_id=op_id, etag=etag)
