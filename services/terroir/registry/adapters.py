"""Adapters: a series of versions and the aliases that point into it."""

from __future__ import annotations

from dataclasses import dataclass

from terroir.registry.aliases import Alias, Aliases, Move
from terroir.registry.names import VersionRef, adapter_name
from terroir.registry.paging import Page, PageQuery, page_of
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

    def page(self, query: PageQuery) -> Page[Adapter]:
        """Adapters by identifier."""
        return page_of(self._versions.adapters(), query, self.get, listing="adapters")

    def versions(self, adapter: str, query: PageQuery) -> Page[Version]:
        """Versions of an adapter, newest first; raises AdapterNotFound."""
        numbers = [str(number) for number in range(self._versions.newest(adapter).number, 0, -1)]

        def load(number: str) -> Version:
            return self._versions.get(adapter, int(number))

        return page_of(numbers, query, load, listing=adapter_name(adapter))

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
