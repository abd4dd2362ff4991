"""Aliases: names that move between the versions of an adapter, with a canary beside them."""

from __future__ import annotations

from collections.abc import Collection as NameCollection
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from terroir.common.clock import Clock
from terroir.common.principal import Principal, Role
from terroir.common.validation import ensure_text
from terroir.registry.errors import AliasNotFound, NothingToRollBack, VersionDeprecated
from terroir.registry.moving.canary import ensure_begins, ensure_canary
from terroir.registry.moving.state import (
    AdapterState,
    AliasEntry,
    Canary,
    HeldState,
    StateChange,
    States,
    Update,
    held_state,
)
from terroir.registry.names import adapter_name, version_name
from terroir.store.documents import Document

_TRAIL: Final = 32
"""How far an alias can be rolled back."""


@dataclass(frozen=True)
class Alias:
    """Where an alias points and who moved it last."""

    adapter: str
    alias: str
    entry: AliasEntry
    etag: str
    """Of the adapter's whole state."""
    protected: bool

    @property
    def number(self) -> int:
        """Number of the version that it points at."""
        return self.entry.number


@dataclass(frozen=True)
class Move:
    """A wish to point an alias at a version."""

    adapter: str
    alias: str
    number: int
    reason: str
    canary: Canary | None = None


class Aliases:
    """The aliases of all adapters."""

    def __init__(self, states: States, clock: Clock, protected: NameCollection[str]) -> None:
        """`protected` names need the role publisher and a reason for every change."""
        self._states = states
        self._clock = clock
        self._protected = frozenset(protected)

    def table(self, adapter: str) -> dict[str, Alias]:
        """All aliases by name; empty for an adapter whose aliases were never set."""
        return self._table(adapter, self._states.get(adapter))

    def state(self, adapter: str) -> AdapterState:
        """All that moves of an adapter."""
        return self._states.get(adapter).state

    def table_in(self, adapter: str, document: Document) -> dict[str, Alias]:
        """All aliases in a state document that is at hand, by name."""
        return self._table(adapter, held_state(document))

    def get(self, adapter: str, alias: str) -> Alias:
        """One alias; raises AliasNotFound."""
        held = self._states.get(adapter)
        return self._shown(adapter, alias, _find(held.state, adapter, alias), held.etag)

    def _table(self, adapter: str, held: HeldState) -> dict[str, Alias]:
        return {name: self._shown(adapter, name, entry, held.etag) for name, entry in held.state.aliases.items()}

    def _shown(self, adapter: str, alias: str, entry: AliasEntry, etag: str) -> Alias:
        return Alias(adapter, alias, entry, etag, alias in self._protected)

    def move(self, move: Move, principal: Principal, *, op_id: str, etag: str = "") -> Alias:
        """Point an alias at a version, once for one `op_id`; versions must exist, that of the canary too.

        The canary of the wish replaces the one that runs; None ends it. Raises PermissionDenied, InvalidArgument,
        VersionDeprecated, EtagMismatch when `etag` is not empty and the state changed since, and OperationConflict when
        `op_id` did something else.
        """
        reason = self._allowed(move.alias, move.reason, principal, "move")
        ensure_canary(move.canary, move.number)

        def update(state: AdapterState) -> tuple[AdapterState, StateChange]:
            # Here, not before: a retry of what was done is answered also when its canary has ended meanwhile.
            ensure_begins(move.canary, self._clock)
            _ensure_usable(state, move.adapter, move.number)
            if move.canary is not None:
                _ensure_usable(state, move.adapter, move.canary.number)
            before = state.aliases.get(move.alias)
            entry = AliasEntry(
                number=move.number,
                actor=principal.name,
                reason=reason,
                updated_at=self._clock.now().isoformat(),
                canary=move.canary,
                trail=_trail_after(before, move.number),
            )
            change = self._change("set_alias", move.adapter, move.alias, entry, op_id, before)
            return replace(state, aliases={**state.aliases, move.alias: entry}), change

        return self._apply(move.adapter, move.alias, update, op_id, {"action": "set_alias", **asdict(move)}, etag)

    def roll_back(
        self, adapter: str, alias: str, reason: str, principal: Principal, *, op_id: str, etag: str = ""
    ) -> Alias:
        """Point an alias at the version before, ending its canary; a repeat under another `op_id` goes one further.

        Raises as `move` does, AliasNotFound, and NothingToRollBack at its first version.
        """
        reason = self._allowed(alias, reason, principal, "roll back", reason_needed=True)

        def update(state: AdapterState) -> tuple[AdapterState, StateChange]:
            before = _find(state, adapter, alias)
            if not before.trail:
                raise NothingToRollBack(
                    f"{adapter_name(adapter)}@{alias} never pointed at another version than {before.number}; "
                    "set it instead (SetAlias)",
                    metadata={"adapter": adapter_name(adapter), "alias": alias},
                )
            number = before.trail[-1]
            _ensure_usable(state, adapter, number)
            now = self._clock.now().isoformat()
            entry = AliasEntry(number, principal.name, reason, now, None, before.trail[:-1])
            change = self._change("rollback_alias", adapter, alias, entry, op_id, before)
            return replace(state, aliases={**state.aliases, alias: entry}), change

        request = {"action": "rollback_alias", "adapter": adapter, "alias": alias, "reason": reason}
        return self._apply(adapter, alias, update, op_id, request, etag)

    def delete(
        self, adapter: str, alias: str, reason: str, principal: Principal, *, op_id: str, etag: str = ""
    ) -> None:
        """Remove an alias, once for one `op_id`; raises as `roll_back` does."""
        reason = self._allowed(alias, reason, principal, "delete", reason_needed=True)

        def update(state: AdapterState) -> tuple[AdapterState, StateChange]:
            before = _find(state, adapter, alias)
            kept = {name: entry for name, entry in state.aliases.items() if name != alias}
            change = StateChange(
                "delete_alias",
                f"{adapter_name(adapter)}@{alias}",
                principal.name,
                reason,
                op_id,
                _told(adapter, before),
            )
            return replace(state, aliases=kept), change

        request = {"action": "delete_alias", "adapter": adapter, "alias": alias, "reason": reason}
        self._states.change(adapter, update, op_id=op_id, request=request, etag=etag)

    def _apply(
        self, adapter: str, alias: str, update: Update, op_id: str, request: Mapping[str, object], etag: str
    ) -> Alias:
        held = self._states.change(adapter, update, op_id=op_id, request=request, etag=etag)
        return self._shown(adapter, alias, held.state.aliases[alias], held.etag)

    def _allowed(self, alias: str, reason: str, principal: Principal, verb: str, *, reason_needed: bool = False) -> str:
        """The reason, once it is clear that this principal may do this to this alias."""
        protected = alias in self._protected
        principal.require(
            Role.PUBLISHER if protected else Role.STYLIST,
            f"{verb} the {'protected ' if protected else ''}alias {alias}",
        )
        return ensure_text(reason, "reason", 500, min_length=1 if protected or reason_needed else 0)

    def _change(
        self, action: str, adapter: str, alias: str, entry: AliasEntry, op_id: str, before: AliasEntry | None
    ) -> StateChange:
        return StateChange(
            action=action,
            name=f"{adapter_name(adapter)}@{alias}",
            actor=entry.actor,
            reason=entry.reason,
            request_id=op_id,
            before=_told(adapter, before) if before is not None else "",
            after=_told(adapter, entry),
        )


def _find(state: AdapterState, adapter: str, alias: str) -> AliasEntry:
    if alias not in state.aliases:
        known = ", ".join(sorted(state.aliases)) or "none"
        raise AliasNotFound(
            f"{adapter_name(adapter)} has no alias {alias!r}; it has: {known} (set it with SetAlias)",
            metadata={"adapter": adapter_name(adapter), "alias": alias},
        )
    return state.aliases[alias]


def _ensure_usable(state: AdapterState, adapter: str, number: int) -> None:
    if number in state.deprecations:
        raise VersionDeprecated(
            f"{version_name(adapter, number)} is deprecated: {state.deprecations[number].reason}; choose another "
            "version, or reinstate it first (DeprecateVersion)",
            metadata={"version": version_name(adapter, number)},
        )


def _trail_after(before: AliasEntry | None, number: int) -> tuple[int, ...]:
    if before is None:
        return ()
    return before.trail if before.number == number else (*before.trail, before.number)[-_TRAIL:]


def _told(adapter: str, entry: AliasEntry) -> str:
    """An entry as the audit trail tells it."""
    canary = entry.canary
    beside = "" if canary is None else f", {canary.percent:g} % at version {canary.number}"
    return version_name(adapter, entry.number) + beside
