"""Registrations in the object store: one sequence of documents a style, and a log by which they are found.

A style's documents are the states of its registrations, one registration after the other. So a second one can only
begin after the end of the first: both would write the same number. The log gets a line before a registration begins;
what it names may be missing, if its writer died in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from terroir.common.clock import Clock
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import NotFound
from terroir.store.interface import ObjectStore
from terroir.training.styles.errors import RegistrationNotFound, StyleBusy
from terroir.training.styles.model import (
    Phase,
    PhaseBegin,
    Registration,
    State,
    Wish,
    body_of,
    registration_id_of,
    registration_name,
    registration_of,
)

STYLES: Final = "styles"
_LOG: Final = "registrations"


@dataclass(frozen=True)
class Logged:
    """A line of the log."""

    number: int
    style: str
    id: str


class Registrations:
    """Reads and changes registrations; safe for threads, processes and replicas."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._log = DocumentSequence(store, _LOG, clock)

    def earlier(self, style: str, request_id: str, request: Mapping[str, Any]) -> Registration | None:
        """What the same request began before, as it is now; raises OperationConflict if it asked for something else."""
        op_id = _begin(registration_id_of(style, request_id))
        if self._sequence(style).find_operation(op_id) is None:
            return None
        self._sequence(style).append_with(_never, op_id=op_id, request=request)
        return self.get(style, registration_id_of(style, request_id))

    def begin(self, wish: Wish, request_id: str, request: Mapping[str, Any]) -> Registration:
        """Begin a registration, once for one `request_id`; `request` is what a repeat must be equal in.

        Raises StyleBusy while another one of the style goes on, and OperationConflict.
        """
        registration_id = registration_id_of(wish.style, request_id)
        now = self._now()
        begun = Registration(registration_id, wish, now, (PhaseBegin(Phase.IMPORTING, now),))

        def build(head: Document | None) -> Mapping[str, Any]:
            self._ensure_free(head)
            self._log.append({"style": wish.style, "id": registration_id}, op_id=begun.name)
            return body_of(begun)

        self._sequence(wish.style).append_with(build, op_id=_begin(registration_id), request=request)
        return self.get(wish.style, registration_id)

    def ensure_free(self, style: str) -> None:
        """Raise StyleBusy while a registration of the style goes on."""
        self._ensure_free(self._head(style))

    def get(self, style: str, registration_id: str) -> Registration:
        """One registration; raises RegistrationNotFound."""
        sequence, head = self._sequence(style), self._head(style)
        for number in range(head.number if head else 0, 0, -1):
            document = head if head is not None and number == head.number else sequence.get(number)
            if document.body["id"] == registration_id:
                return _registration(document)
        raise RegistrationNotFound(
            f"{registration_name(style, registration_id)} does not exist (list them: terroir style list)"
        )

    def newest(self, style: str) -> Registration:
        """The style's newest registration; raises RegistrationNotFound."""
        if (head := self._head(style)) is None:
            raise RegistrationNotFound(f"styles/{style} was never registered (list styles: terroir style list)")
        return _registration(head)

    def of_style(self, style: str) -> list[Registration]:
        """All registrations of a style, newest first."""
        newest: dict[str, Registration] = {}
        for document in self._sequence(style).history():
            newest[document.body["id"]] = _registration(document)
        return list(newest.values())[::-1]

    def logged(self, after: int = 0) -> Iterator[Logged]:
        """Lines of the log above a number, oldest first."""
        return map(_logged, self._log.after(after))

    def logged_before(self, number: int | None) -> Iterator[Logged]:
        """Lines of the log below a number (None: all), newest first."""
        if number is None:
            try:
                number = self._log.head().number + 1
            except NotFound:
                return
        for below in range(number - 1, 0, -1):
            yield _logged(self._log.get(below))

    def change(
        self, registration: Registration, op_id: str, update: Callable[[Registration], Registration]
    ) -> Registration:
        """Write `update` of the newest state unless it has ended or nothing changes; returns the state as it is then.

        `op_id` names the change within the registration and makes a repeat harmless.
        """
        style = registration.wish.style

        def build(head: Document | None) -> Mapping[str, Any]:
            if head is None or head.body["id"] != registration.id:
                raise _UnchangedError  # it has ended, and the next one has begun
            before = _registration(head)
            after = before if before.ended else update(before)
            if after == before:
                raise _UnchangedError
            return body_of(after)

        with suppress(_UnchangedError):
            self._sequence(style).append_with(build, op_id=f"{registration.id}/{op_id}", request={"change": op_id})
        return self.get(style, registration.id)

    def enter(self, registration: Registration, phase: Phase, **facts: Any) -> Registration:
        """Go on to a phase with what was found out; one that is in another phase by now stays as it is."""

        def update(head: Registration) -> Registration:
            if head.phase is not registration.phase:
                return head
            begun = PhaseBegin(phase, self._now())
            return replace(head, phases=(*head.phases, begun), **facts)

        return self.change(registration, f"enter/{phase}", update)

    def end(self, registration: Registration, state: State, **facts: Any) -> Registration:
        """Bring it to its end; one that has ended stays as it is."""
        return self.change(registration, "end", lambda head: replace(head, state=state, ended_at=self._now(), **facts))

    def request_cancel(self, registration: Registration) -> Registration:
        """Ask for its end."""
        return self.change(registration, "cancel", lambda head: replace(head, cancel_requested=True))

    def _ensure_free(self, head: Document | None) -> None:
        if head is not None and not (newest := _registration(head)).ended:
            raise StyleBusy(
                f"styles/{newest.wish.style} is being registered already by {newest.wish.creator} ({newest.phase}): "
                f"wait for it (terroir style watch {newest.name}) or end it (terroir style cancel {newest.name})",
                metadata={"registration": newest.name},
            )

    def _head(self, style: str) -> Document | None:
        try:
            return self._sequence(style).head()
        except NotFound:
            return None

    def _sequence(self, style: str) -> DocumentSequence:
        return DocumentSequence(self._store, f"{STYLES}/{style}", self._clock)

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="milliseconds")


class _UnchangedError(Exception):
    """Nothing is to be written."""


def _never(_head: Document | None) -> Mapping[str, Any]:
    raise AssertionError("an operation that is there is not built again")


def _begin(registration_id: str) -> str:
    return f"{registration_id}/begin"


def _registration(document: Document) -> Registration:
    return registration_of(document.body, document.etag)


def _logged(document: Document) -> Logged:
    return Logged(document.number, document.body["style"], document.body["id"])
