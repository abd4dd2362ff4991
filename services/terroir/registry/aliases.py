"""Aliases: the only things of an adapter that move.

One sequence an adapter; each document is the whole table after one move together with that move, so the head answers
every read and the sequence is the audit trail.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from terroir.common.clock import Clock
from terroir.registry.errors import AliasNotFound
from terroir.registry.names import adapter_name
from terroir.store.documents import Collection, Document
from terroir.store.errors import NotFound


@dataclass(frozen=True)
class Move:
    """A wish to point an alias at a version."""

    adapter: str
    alias: str
    number: int
    actor: str
    reason: str


@dataclass(frozen=True)
class Alias:
    """Where an alias points and who moved it last."""

    adapter: str
    alias: str
    number: int
    actor: str
    reason: str
    updated_at: str
    """RFC 3339, UTC."""
    etag: str
    """Of the adapter's whole alias table."""


class Aliases:
    """The alias tables of all adapters."""

    def __init__(self, sequences: Collection, clock: Clock) -> None:
        self._sequences = sequences
        self._clock = clock

    def table(self, adapter: str) -> dict[str, Alias]:
        """All aliases by name; empty for an adapter whose aliases were never set."""
        try:
            return _table(adapter, self._sequences.sequence(adapter).head())
        except NotFound:
            return {}

    def get(self, adapter: str, alias: str) -> Alias:
        """One alias; raises AliasNotFound."""
        table = self.table(adapter)
        if alias not in table:
            known = ", ".join(sorted(table)) or "none"
            raise AliasNotFound(
                f"{adapter_name(adapter)} has no alias {alias!r}; it has: {known} (set it with SetAlias)",
                metadata={"adapter": adapter_name(adapter), "alias": alias},
            )
        return table[alias]

    def move(self, move: Move, *, op_id: str, etag: str = "") -> Alias:
        """Move an alias once, however often this is repeated with one `op_id`; the version must exist.

        Raises EtagMismatch when `etag` is not empty and the table changed since, OperationConflict when `op_id` moved
        something else.
        """

        def build(head: Document | None) -> dict[str, Any]:
            entry = {
                "number": move.number,
                "actor": move.actor,
                "reason": move.reason,
                "updated_at": self._clock.now().isoformat(),
            }
            before = head.body["aliases"] if head is not None else {}
            return {"aliases": {**before, move.alias: entry}, "moved": move.alias, "from": before.get(move.alias)}

        document = self._sequences.sequence(move.adapter).append_with(
            build, op_id=op_id, request=asdict(move), expected_etag=etag or None
        )
        return _table(move.adapter, document)[move.alias]

    def trail(self, adapter: str) -> list[Alias]:
        """Every move, oldest first."""
        history = self._sequences.sequence(adapter).history()
        return [_table(adapter, document)[document.body["moved"]] for document in history]


def _table(adapter: str, document: Document) -> dict[str, Alias]:
    entries: dict[str, dict[str, Any]] = document.body["aliases"]
    return {name: Alias(adapter=adapter, alias=name, etag=document.etag, **entry) for name, entry in entries.items()}
