"""What was said to be no longer right: a rule holds for every set that was drawn before it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog

from terroir.common.clock import Clock
from terroir.inference.covers.shelf import CoverSet
from terroir.inference.covers.units import Unit
from terroir.store.documents import DocumentSequence
from terroir.store.errors import CorruptObject, StoreError
from terroir.store.interface import ObjectStore

MAX_RULES: Final = 100_000
"""In memory; older ones are forgotten, and what they named counts as right again if nothing has redrawn it."""
_POLL_SECONDS: Final = 0.5
_log = structlog.get_logger()


@dataclass(frozen=True)
class Invalidation:
    """One rule; an empty part means all."""

    contents: tuple[str, ...]
    """Digests of contents."""
    looks: tuple[str, ...]
    """Digests of looks."""
    at: float
    """Seconds since 1970."""
    withdraw: bool
    """Whether the covers must not be shown any more."""
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a set."""

    stale_since: float | None = None
    """Seconds since 1970; None: it is right."""
    withdrawn: bool = False


RIGHT: Final = Verdict()


@dataclass(frozen=True)
class _Rule:
    at: float
    withdraw: bool


class Invalidations:
    """Kept in the store, `covers/invalidations/…`, and heard of on every server within a second.

    `verdict` answers from memory; one event loop owns it.
    """

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._documents = DocumentSequence(store, "covers/invalidations", clock)
        self._rules: OrderedDict[tuple[str, str], list[_Rule]] = OrderedDict()
        """By content and look, either of them empty for all."""
        self._heard = 0

    def verdict(self, unit: Unit, found: CoverSet) -> Verdict:
        """What the rules say of a set."""
        if not self._rules:
            return RIGHT
        places = ((unit.content, unit.look), (unit.content, ""), ("", unit.look))
        rules = [rule for place in places for rule in self._rules.get(place, ()) if rule.at > found.made_at]
        if not rules:
            return RIGHT
        return Verdict(min(rule.at for rule in rules), any(rule.withdraw for rule in rules))

    async def add(self, rule: Invalidation, op_id: str) -> None:
        """Say it to every server; raises StoreUnavailable and OperationConflict."""
        request = {**asdict(rule), "at": 0}
        await asyncio.to_thread(self._documents.append_with, lambda _head: asdict(rule), op_id=op_id, request=request)
        await self.hear()

    async def hear(self) -> None:
        """Take what was said since the last time; raises StoreUnavailable."""
        for number, body in await asyncio.to_thread(self._read, self._heard):
            self._heard = max(self._heard, number)
            self._take(body)

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self.hear()
            except StoreError as error:
                _log.warning("invalidations not heard", reason=error.reason)
            await asyncio.sleep(_POLL_SECONDS)

    def _read(self, heard: int) -> Sequence[tuple[int, dict[str, Any]]]:
        found: list[tuple[int, dict[str, Any]]] = []
        try:
            found.extend((document.number, document.body) for document in self._documents.after(heard))
        except CorruptObject as error:
            _log.error("invalidation damaged", error=str(error))
            found.append((max([heard, *(number for number, _ in found)]) + 1, {}))
        return found

    def _take(self, body: dict[str, Any]) -> None:
        if not body:
            return
        rule = _Rule(body["at"], body["withdraw"])
        for content in body["contents"] or [""]:
            for look in body["looks"] or [""]:
                place = (content, look)
                # Of two rules of a kind the later one says all that the earlier one does.
                kept = [each for each in self._rules.pop(place, []) if each.withdraw != rule.withdraw]
                self._rules[place] = [*kept, rule]
        while len(self._rules) > MAX_RULES:
            self._rules.popitem(last=False)


def digests(looks: Iterable[str]) -> tuple[str, ...]:
    """Without repeats, in a fixed order."""
    return tuple(sorted(set(looks)))
