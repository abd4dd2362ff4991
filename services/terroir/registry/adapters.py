"""Adapters: a series of versions and the aliases that point into it.

Reads come from the index, which may lag behind another replica's write by a second. What the index does not know is
asked of the store before it is called missing, and so is everything for a `strong` read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from terroir.common.clock import Clock
from terroir.common.principal import Principal
from terroir.registry.index.fold import Index
from terroir.registry.index.search import AdapterFilter, Search
from terroir.registry.moving.aliases import Alias, Aliases, Move
from terroir.registry.moving.canary import side
from terroir.registry.moving.deprecation import DeprecationRequest, Deprecations
from terroir.registry.moving.state import AdapterState, held_state
from terroir.registry.names import VersionRef, adapter_name, parse_reference
from terroir.registry.paging import Page, PageQuery, page_of
from terroir.registry.versions import Version, Versions, version_of


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

    def __init__(
        self, versions: Versions, aliases: Aliases, deprecations: Deprecations, index: Index, clock: Clock
    ) -> None:
        """`clock` tells when a canary has ended."""
        self._versions = versions
        self._aliases = aliases
        self._deprecations = deprecations
        self._index = index
        self._clock = clock

    def get(self, adapter: str, *, strong: bool = False) -> Adapter:
        """One adapter; raises AdapterNotFound."""
        known = None if strong else self._index.outline(adapter)
        if known is None:
            number = self._versions.newest(adapter).number
            known = number, self._versions.get(adapter, 1).created_at
        table = self._table(adapter, strong=strong)
        return Adapter(adapter, known[0], tuple(table[name] for name in sorted(table)), known[1])

    def versions(self, adapter: str, query: PageQuery) -> Page[Version]:
        """Versions of an adapter, newest first; raises AdapterNotFound."""
        numbers = [str(number) for number in range(self._newest(adapter).number, 0, -1)]

        def load(number: str) -> Version:
            return self._version(adapter, int(number))

        return page_of(numbers, query, load, listing=adapter_name(adapter))

    def resolve(self, reference: VersionRef, *, sticky_key: str = "", strong: bool = False) -> Version:
        """The version that is meant, for the caller `sticky_key` where an alias has a canary (see `canary.side`).

        Raises AdapterNotFound, VersionNotFound or AliasNotFound.
        """
        adapter = reference.adapter
        if reference.number is not None:
            return self._version(adapter, reference.number, strong=strong)
        if reference.alias is None:
            return self._newest(adapter, strong=strong)
        alias = self._table(adapter, strong=strong).get(reference.alias)
        if alias is None:
            self._newest(adapter, strong=strong)  # an adapter that is missing is the first thing to say
            alias = self._aliases.get(adapter, reference.alias)
        number = side(adapter, reference.alias, alias.entry, sticky_key, self._clock.now())
        return self._version(adapter, number, strong=strong)

    def state(self, adapter: str, *, strong: bool = False) -> AdapterState:
        """What moves of an adapter; empty for one that does not exist."""
        known = None if strong else self._index.state(adapter)
        if known is not None:
            return held_state(known).state
        return AdapterState() if not strong and self._index.knows(adapter) else self._aliases.state(adapter)

    def set_alias(self, move: Move, principal: Principal, *, op_id: str, etag: str = "") -> Alias:
        """Move an alias to existing versions; raises as `resolve` and `Aliases.move` do."""
        self._version(move.adapter, move.number)
        if move.canary is not None:
            self._version(move.adapter, move.canary.number)
        return self._aliases.move(move, principal, op_id=op_id, etag=etag)

    def deprecate(self, request: DeprecationRequest, principal: Principal, *, op_id: str) -> Version:
        """Deprecate a version or take that back; raises as `resolve` and `Deprecations.change` do."""
        version = self._version(request.adapter, request.number)
        if request.replacement:
            self.resolve(parse_reference(request.replacement, "replacement"))
        deprecation = self._deprecations.change(request, principal, op_id=op_id)
        return replace(version, deprecation=deprecation)

    def roll_back(
        self, adapter: str, alias: str, reason: str, principal: Principal, *, op_id: str, etag: str = ""
    ) -> Alias:
        """Point an alias at the version before; raises as `Aliases.roll_back` does, and AdapterNotFound."""
        self._newest(adapter)
        return self._aliases.roll_back(adapter, alias, reason, principal, op_id=op_id, etag=etag)

    def delete_alias(
        self, adapter: str, alias: str, reason: str, principal: Principal, *, op_id: str, etag: str = ""
    ) -> None:
        """Remove an alias; raises as `Aliases.delete` does, and AdapterNotFound."""
        self._newest(adapter)
        self._aliases.delete(adapter, alias, reason, principal, op_id=op_id, etag=etag)

    def _newest(self, adapter: str, *, strong: bool = False) -> Version:
        known = None if strong else self._index.version(adapter)
        version = version_of(adapter, known) if known is not None else self._versions.newest(adapter)
        return self._marked(version, strong=strong)

    def _version(self, adapter: str, number: int, *, strong: bool = False) -> Version:
        known = None if strong else self._index.version(adapter, number)
        version = version_of(adapter, known) if known is not None else self._versions.get(adapter, number)
        return self._marked(version, strong=strong)

    def _marked(self, version: Version, *, strong: bool) -> Version:
        """With its deprecation, if it has one."""
        deprecation = self.state(version.adapter, strong=strong).deprecations.get(version.number)
        return version if deprecation is None else replace(version, deprecation=deprecation)

    def _table(self, adapter: str, *, strong: bool) -> dict[str, Alias]:
        known = None if strong else self._index.state(adapter)
        if known is not None:
            return self._aliases.table_in(adapter, known)
        # Most adapters have no alias: of one that the index knows, that needs no look at the store.
        return {} if not strong and self._index.knows(adapter) else self._aliases.table(adapter)


class AdapterSearch:
    """Finds adapters and versions in the index."""

    def __init__(self, adapters: Adapters, search: Search) -> None:
        self._adapters = adapters
        self._search = search

    def page(self, conditions: AdapterFilter, query: PageQuery) -> Page[Adapter]:
        """Adapters that meet the conditions, by identifier; raises InvalidArgument."""
        found = self._search.adapters(conditions, query)
        return Page(tuple(map(self._adapters.get, found.items)), found.next_token)

    def by_hash(self, digits: str) -> list[Version]:
        """Versions with a hash that begins with `digits`, oldest first, at most 200; raises InvalidArgument."""
        return [self._adapters.resolve(VersionRef(adapter, number)) for adapter, number in self._search.by_hash(digits)]
