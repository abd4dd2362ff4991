"""The audit trail of an adapter: publishes and changes of what moves, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import page
from terroir.registry.moving.state import States, change_in
from terroir.registry.names import adapter_name
from terroir.registry.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageQuery
from terroir.registry.versions import Versions

_TOKEN_PARTS: Final = 2


@dataclass(frozen=True)
class AuditEvent:
    """One change, by whom and why."""

    time: str
    """RFC 3339, UTC."""
    actor: str
    action: str
    name: str
    reason: str = ""
    before: str = ""
    after: str = ""
    request_id: str = ""


class Audit:
    """Merges two sequences that are ordered each by itself; reads no more than a page needs."""

    def __init__(self, versions: Versions, states: States) -> None:
        self._versions = versions
        self._states = states

    def page(self, adapter: str, query: PageQuery) -> Page[AuditEvent]:
        """Events of an adapter, newest first; raises AdapterNotFound, InvalidArgument.

        Two events of different replicas are ordered by the replicas' clocks.
        """
        newest = self._versions.newest(adapter).number
        request = page(
            query.size, query.token, default=DEFAULT_PAGE_SIZE, limit=MAX_PAGE_SIZE, query=f"audit {adapter}"
        )
        at = (newest, self._states.number(adapter)) if request.after is None else _position(request.after)
        events: list[AuditEvent] = []
        last = ""
        for event, position in self._merged(adapter, *at):
            if len(events) == request.size:
                return Page(tuple(events), request.next_token(last))
            events.append(event)
            last = f"{position[0]} {position[1]}"
        return Page(tuple(events), "")

    def _merged(self, adapter: str, version: int, state: int) -> Iterator[tuple[AuditEvent, tuple[int, int]]]:
        """Events from these numbers downwards, each with the numbers to go on from."""
        published = self._published(adapter, version)
        changed = self._changed(adapter, state)
        while published is not None or changed is not None:
            if changed is None or (published is not None and published.time > changed.time):
                assert published is not None  # one of the two is left
                version -= 1
                yield published, (version, state)
                published = self._published(adapter, version)
            else:
                state -= 1
                yield changed, (version, state)
                changed = self._changed(adapter, state)

    def _published(self, adapter: str, number: int) -> AuditEvent | None:
        if number < 1:
            return None
        version = self._versions.get(adapter, number)
        return AuditEvent(version.created_at, version.manifest.actor, "publish", version.name, after=version.name)

    def _changed(self, adapter: str, number: int) -> AuditEvent | None:
        if number < 1:
            return None
        document = self._states.document(adapter, number)
        change = change_in(document.body)
        return AuditEvent(
            document.created_at, change.actor, change.action, change.name or adapter_name(adapter), change.reason,
            change.before, change.after, change.request_id,
        )  # fmt: skip


def _position(token: str) -> tuple[int, int]:
    parts = token.split(" ")
    if len(parts) != _TOKEN_PARTS or not all(part.isdecimal() and len(part) <= 20 for part in parts):
        raise InvalidArgument(
            "page_token is not one that this list gave out; start again without it",
            reason="INVALID_PAGE_TOKEN",
            field="page_token",
        )
    return int(parts[0]), int(parts[1])
