"""What moves of an adapter: aliases with canaries, deprecations, presets and samples.

One sequence an adapter, `aliases/<id>`. Each document is the whole state after one change, together with that change:

    {"aliases": {name: {…}}, "deprecations": {number: {…}}, "shelf": {"presets": […], "samples": […]},
     "change": {"action", "name", "actor", "reason", "request_id", "before", "after"}}

So the head answers every read, two replicas cannot lose each other's update, and the sequence is the audit trail. Other
modules change a state by handing `States.change` a function from the state before to the state after and the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from terroir.registry.moving.preset_shelf import PresetShelf
from terroir.store.documents import Collection, Document
from terroir.store.errors import NotFound


@dataclass(frozen=True)
class Guardrail:
    """A bound that a canary must keep."""

    metric: str
    maximum: float


@dataclass(frozen=True)
class Canary:
    """A version that a share of an alias's callers gets."""

    number: int
    percent: float
    """0 < percent <= 100."""
    expires_at: str = ""
    """RFC 3339, UTC; from then on everybody gets the alias's own version. Empty: never."""
    guardrails: tuple[Guardrail, ...] = ()

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Canary:
        """Inverse of `asdict`."""
        return Canary(**{**body, "guardrails": tuple(Guardrail(**each) for each in body["guardrails"])})


@dataclass(frozen=True)
class AliasEntry:
    """Where an alias points."""

    number: int
    actor: str
    reason: str
    updated_at: str
    """RFC 3339, UTC."""
    canary: Canary | None = None
    trail: tuple[int, ...] = ()
    """Where it pointed before, newest last: what a rollback goes back to."""

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> AliasEntry:
        """Inverse of `asdict`."""
        canary = body["canary"] and Canary.from_body(body["canary"])
        return AliasEntry(**{**body, "canary": canary, "trail": tuple(body["trail"])})


@dataclass(frozen=True)
class Deprecation:
    """Why a version must no longer be used."""

    reason: str
    for_cause: bool
    """It must not be served any more, not even from memory."""
    actor: str
    created_at: str
    """RFC 3339, UTC."""
    replacement: str = ""
    """`adapters/{id}/versions/{number}`, or empty."""


@dataclass(frozen=True)
class AdapterState:
    """All that moves of one adapter."""

    aliases: Mapping[str, AliasEntry] = field(default_factory=dict)
    deprecations: Mapping[int, Deprecation] = field(default_factory=dict)
    shelf: PresetShelf = field(default_factory=PresetShelf)

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return {
            "aliases": {name: asdict(entry) for name, entry in self.aliases.items()},
            "deprecations": {str(number): asdict(each) for number, each in self.deprecations.items()},
            "shelf": self.shelf.to_body(),
        }

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> AdapterState:
        """Inverse of `to_body`; other entries of a document's body are ignored."""
        return AdapterState(
            aliases={name: AliasEntry.from_body(entry) for name, entry in body["aliases"].items()},
            deprecations={int(number): Deprecation(**each) for number, each in body["deprecations"].items()},
            shelf=PresetShelf.from_body(body["shelf"]),
        )


@dataclass(frozen=True)
class StateChange:
    """One change, by whom and why."""

    action: str
    """`set_alias`, `rollback_alias`, `delete_alias`, `deprecate`, `reinstate`, `set_presets` or `add_sample`."""
    name: str
    """What was changed: `adapters/{id}@{alias}`, `adapters/{id}/versions/{number}` or `adapters/{id}`."""
    actor: str
    reason: str = ""
    request_id: str = ""
    before: str = ""
    """For people; empty if there was nothing."""
    after: str = ""
    """For people; empty if there is nothing."""


@dataclass(frozen=True)
class HeldState:
    """A state as it is stored."""

    state: AdapterState
    etag: str
    """Empty for an adapter of which nothing was ever changed."""
    changed_at: str = ""
    """RFC 3339, UTC."""


Update = Callable[[AdapterState], tuple[AdapterState, StateChange]]


class States:
    """The states of all adapters; that an adapter exists is its callers' concern."""

    def __init__(self, sequences: Collection) -> None:
        self._sequences = sequences

    def get(self, adapter: str) -> HeldState:
        """The newest state; an empty one if nothing was ever changed."""
        try:
            return held_state(self._sequences.sequence(adapter).head())
        except NotFound:
            return HeldState(AdapterState(), "")

    def change(
        self, adapter: str, update: Update, *, op_id: str, request: Mapping[str, Any], etag: str = ""
    ) -> HeldState:
        """Apply `update` once, however often this is repeated with one `op_id` and equal `request`.

        `update` sees the state that it changes, and runs again when another writer was faster; what it raises leaves
        all as it was. Raises EtagMismatch when `etag` is not empty and the state changed since, OperationConflict when
        `op_id` did another request.
        """

        def build(head: Document | None) -> dict[str, Any]:
            before = AdapterState.from_body(head.body) if head is not None else AdapterState()
            after, change = update(before)
            return {**after.to_body(), "change": asdict(change)}

        document = self._sequences.sequence(adapter).append_with(
            build, op_id=op_id, request=request, expected_etag=etag or None
        )
        return held_state(document)

    def number(self, adapter: str) -> int:
        """How many changes there were."""
        try:
            return self._sequences.sequence(adapter).head().number
        except NotFound:
            return 0

    def document(self, adapter: str, number: int) -> Document:
        """One change with the state after it; raises NotFound."""
        return self._sequences.sequence(adapter).get(number)

    def history(self, adapter: str) -> Iterator[Document]:
        """All changes, oldest first."""
        return self._sequences.sequence(adapter).history()


def held_state(document: Document) -> HeldState:
    """The state that a document holds."""
    return HeldState(AdapterState.from_body(document.body), document.etag, document.created_at)


def change_in(body: Mapping[str, Any]) -> StateChange:
    """The change that a document's body tells."""
    return StateChange(**body["change"])


def action_of(body: Mapping[str, Any]) -> str:
    """The action that a document's body tells."""
    return str(body["change"]["action"])


def state_facts(body: Mapping[str, Any]) -> tuple[tuple[str, ...], frozenset[int]]:
    """What searches ask of a state: names of its aliases, and numbers of deprecated versions."""
    return tuple(sorted(body["aliases"])), frozenset(map(int, body["deprecations"]))
