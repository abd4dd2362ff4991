"""Every order in which the requests of concurrent writers can reach a store, with every loss of a request or answer.

A writer is run up to its next request and no further: it is started anew with the answers that it has had so far, and
stopped at the first request without one. So no threads are needed, a run is a value, and runs that have come to the
same state are continued once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import AlreadyExists, NotFound, StoreError, StoreUnavailable
from terroir.store.interface import ObjectStore
from tests.unit.store.faulty_store import Fault

Answer = bytes | bool | StoreError | None


@dataclass(frozen=True)
class Request:
    """One request to the store."""

    verb: str
    key: str
    body: bytes = b""


class _NextRequest(BaseException):  # passes through every `except Exception` of the code under test
    def __init__(self, request: Request) -> None:
        self.request = request


class _Replayed:
    """Answers from the record; stops its caller at the first request that has no answer yet."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = iter(answers)

    def _ask(self, request: Request) -> Any:
        try:
            answer = next(self._answers)
        except StopIteration:
            raise _NextRequest(request) from None
        if isinstance(answer, StoreError):
            raise answer
        return answer

    def get(self, key: str) -> bytes:
        return self._ask(Request("get", key))

    def exists(self, key: str) -> bool:
        return self._ask(Request("exists", key))

    def create(self, key: str, body: bytes) -> None:
        self._ask(Request("create", key, body))

    def put(self, key: str, body: bytes) -> None:
        self._ask(Request("put", key, body))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        raise NotImplementedError

    def size(self, key: str) -> int:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError

    def list(self, prefix: str) -> Iterator[str]:
        raise NotImplementedError


@dataclass(frozen=True)
class Operation:
    """What one caller wants; tried again after StoreUnavailable, as its client would, until `attempts` are used up."""

    op_id: str
    body: str
    expected_etag: str | None = None
    attempts: int = 2


@dataclass(frozen=True)
class Writer:
    """One operation on its way: the answers of its running attempt, or its outcome."""

    operation: Operation
    attempt: int = 1
    answers: tuple[Answer, ...] = ()
    request: Request | None = None
    outcome: Document | StoreError | None = None


@dataclass(frozen=True)
class State:
    """Everything that decides what can happen next."""

    objects: Mapping[str, bytes]
    writers: tuple[Writer, ...]
    faults_left: int


Opening = Callable[[ObjectStore], DocumentSequence]
"""A sequence opened anew, as by a replica that has just started."""


class Exploration:
    """Walks through all that can happen. Few histories of a writer make up many states, so each is run once."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._advanced: dict[object, Writer] = {}
        self._followed: dict[tuple[int, object], Writer] = {}
        self._numbers: dict[object, int] = {}
        self._number_of: dict[int, int] = {}
        self.states = 0

    def explore(
        self,
        objects: Mapping[str, bytes],
        operations: tuple[Operation, ...],
        faults: int,
        check: Callable[[State], None],
        finished: Callable[[State], None],
    ) -> None:
        """Call `check` with every reachable state and `finished` with every last one."""
        first = State(objects, tuple(self._advance(Writer(operation)) for operation in operations), faults)
        seen = {self._key(first)}
        waiting = [first]
        while waiting:
            state = waiting.pop()
            check(state)
            following = list(self._following(state))
            if not following:
                finished(state)
            for each in following:
                key = self._key(each)
                if key not in seen:
                    seen.add(key)
                    waiting.append(each)
        self.states = len(seen)

    def _following(self, state: State) -> Iterator[State]:
        for index, writer in enumerate(state.writers):
            if writer.request is None:
                continue
            for fault in (None, *Fault) if state.faults_left else (None,):
                if fault is Fault.REPEATED and writer.request.verb != "create":
                    continue  # repeating any other request changes nothing
                objects, answer = _served(state.objects, writer.request, fault)
                moved = self._follow(writer, answer)
                writers = (*state.writers[:index], moved, *state.writers[index + 1 :])
                yield State(objects, writers, state.faults_left - (fault is not None))

    def _follow(self, writer: Writer, answer: Answer) -> Writer:
        """The writer once it has this answer; writers are told apart by `id`, for `_advanced` keeps them all."""
        key = (id(writer), _comparable(answer))
        if key not in self._followed:
            self._followed[key] = self._advance(replace(writer, answers=(*writer.answers, answer)))
        return self._followed[key]

    def _advance(self, writer: Writer) -> Writer:
        key = _history(writer)
        if key not in self._advanced:
            self._advanced[key] = _run(writer, self._opening)
        return self._advanced[key]

    def _key(self, state: State) -> object:
        """Equal for states with equal futures, and small: there are many."""
        objects = self._number(frozenset(state.objects.items()))
        return (state.faults_left, objects, *map(self._number_of_history, state.writers))

    def _number(self, part: object) -> int:
        return self._numbers.setdefault(part, len(self._numbers))

    def _number_of_history(self, writer: Writer) -> int:
        if id(writer) not in self._number_of:
            self._number_of[id(writer)] = self._number(_history(writer))
        return self._number_of[id(writer)]


def _history(writer: Writer) -> object:
    return writer.operation, writer.attempt, tuple(map(_comparable, writer.answers)), _comparable(writer.outcome)


def _run(writer: Writer, opening: Opening) -> Writer:
    """Up to its next request or its outcome."""
    operation = writer.operation
    try:
        outcome: Document | StoreError = opening(_Replayed(writer.answers)).append(
            {"wish": operation.body}, op_id=operation.op_id, expected_etag=operation.expected_etag
        )
    except _NextRequest as stop:
        return replace(writer, request=stop.request)
    except StoreUnavailable as error:
        if writer.attempt < operation.attempts:
            return _run(Writer(operation, writer.attempt + 1), opening)
        outcome = error
    except StoreError as error:
        outcome = error
    # How it came to its outcome no longer matters.
    return Writer(operation, outcome=outcome)


def _served(before: Mapping[str, bytes], request: Request, fault: Fault | None) -> tuple[Mapping[str, bytes], Answer]:
    if fault is Fault.LOST_REQUEST:
        return before, StoreUnavailable("lost request", request.key)
    objects = dict(before)
    answer = _answer(objects, request)
    if fault is Fault.REPEATED:
        answer = _answer(objects, request)
    if fault is Fault.LOST_RESPONSE:
        return objects, StoreUnavailable("lost response", request.key)
    return objects, answer


def _answer(objects: dict[str, bytes], request: Request) -> Answer:
    there = request.key in objects
    match request.verb:
        case "get":
            return objects[request.key] if there else NotFound("not there", request.key)
        case "exists":
            return there
        case "create" if there:
            return AlreadyExists("there", request.key)
        case _:
            objects[request.key] = request.body
            return None


def _comparable(value: object) -> object:
    if isinstance(value, StoreError):
        return type(value).__name__, value.args
    return value.etag if isinstance(value, Document) else value
