"""The writer's protocol under every interleaving of two replicas and every loss of a request or an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from terroir.common.clock import FixedClock
from terroir.store.documents import MUST_NOT_EXIST, Collection, Document, DocumentSequence
from terroir.store.errors import EtagMismatch, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal
from terroir.store.obstore_driver import MemoryStore
from tests.unit.store.interleaving import Exploration, Opening, Operation, State

CLOCK = FixedClock()


def sequence(store: ObjectStore) -> DocumentSequence:
    """One that is announced in a journal."""
    return DocumentSequence(store, "log", CLOCK, log=Journal(store, "journal", CLOCK))


def child(store: ObjectStore) -> DocumentSequence:
    """One of a collection, which keeps an index of its children."""
    return collection(store).sequence("log")


def collection(store: ObjectStore) -> Collection:
    return Collection(store, "all", CLOCK, log=Journal(store, "journal", CLOCK))


def holding(*op_ids: str, hint: bool = True) -> dict[str, bytes]:
    """Objects of a log that holds these operations already."""
    store = MemoryStore()
    for op_id in op_ids:
        sequence(store).append({"wish": op_id}, op_id=op_id)
    return {key: store.get(key) for key in store.list("") if hint or not key.endswith("HEAD")}


def documents(objects: Mapping[str, bytes]) -> list[dict[str, object]]:
    """Bodies of the log, in the order of their numbers; fails if a number is missing."""
    found = {
        key.rpartition("log/")[2]: body
        for key, body in objects.items()
        if key.startswith(("log/", "all/log/")) and key.endswith(".json")
    }
    assert sorted(found) == [f"{number:020d}.json" for number in range(1, len(found) + 1)], "a gap"
    return [json.loads(found[key]) for key in sorted(found)]


class Promises:
    """What must hold in every state, and more in every last one."""

    def __init__(self, before: Mapping[str, bytes], opening: Opening = sequence) -> None:
        self._objects = before
        self._opening = opening
        self._before = [document["op_id"] for document in documents(before)]
        self.ends: set[tuple[str, ...]] = set()
        self._checked: set[frozenset[tuple[str, bytes]]] = set()

    def explore(self, operations: tuple[Operation, ...], faults: int) -> int:
        """Everything that can happen to these operations; returns how many states that are."""
        exploration = Exploration(self._opening)
        exploration.explore(self._objects, operations, faults, self.check, self.finished)
        return exploration.states

    def check(self, state: State) -> None:
        for writer in state.writers:
            if isinstance(writer.outcome, Document):
                stored = documents(state.objects)[writer.outcome.number - 1]
                assert stored["op_id"] == writer.operation.op_id, "an acknowledged write was lost"
        objects = state.objects
        if (contents := frozenset(objects.items())) in self._checked:
            return
        self._checked.add(contents)
        history = [document["op_id"] for document in documents(objects)]
        assert history[: len(self._before)] == self._before, "history was changed"
        assert len(set(history)) == len(history), "an operation was written twice"
        announced = {
            hint["op_id"]
            for key, body in objects.items()
            if key.startswith("journal/")
            for hint in json.loads(body)["hints"]
        }
        assert announced.issuperset(history), "a write that nobody who follows the journal would hear of"

    def finished(self, state: State) -> None:
        store = MemoryStore()
        for key, body in state.objects.items():
            store.create(key, body)
        history = [document["op_id"] for document in documents(state.objects)]
        for writer in state.writers:
            operation, outcome = writer.operation, writer.outcome
            assert outcome is not None
            if isinstance(outcome, StoreUnavailable | EtagMismatch):
                continue
            assert isinstance(outcome, Document)
            again = self._opening(store).append(
                {"wish": operation.body}, op_id=operation.op_id, expected_etag=operation.expected_etag
            )
            assert again == outcome, "a repeat of an acknowledged operation gave something else"
        newest = self._opening(store).append({"wish": "next"}, op_id="next")
        assert newest.number == len(history) + 1
        assert self._opening(store).head() == newest
        self.ends.add(tuple(history[len(self._before) :]))


A, B = Operation("a", "a"), Operation("b", "b")


@pytest.mark.parametrize("before", [(), ("x",), ("x", "y", "z")], ids=len)
@pytest.mark.parametrize("hint", [True, False], ids=["hint", "no hint"])
def test_two_replicas_write_each_operation_once_whatever_one_loss_and_whatever_order(
    before: tuple[str, ...], hint: bool
) -> None:
    objects = holding(*before, hint=hint)
    promises = Promises(objects)
    states = promises.explore((A, B), 1)
    assert states > 1_000
    assert promises.ends == {("a", "b"), ("b", "a")}, "one loss, and the repeat did not make up for it"


@pytest.mark.slow  # tens of thousands of states
def test_two_losses_leave_nothing_half_done() -> None:
    """An operation whose caller gave up may have happened or not, but never twice and never in part."""
    promises = Promises({})
    promises.explore((A, B), 2)
    assert promises.ends == {("a", "b"), ("b", "a"), ("a",), ("b",)}


def test_a_request_that_a_client_repeats_at_another_replica_while_the_first_still_runs_is_done_once() -> None:
    promises = Promises({})
    promises.explore((A, A), 1)
    assert promises.ends == {("a",)}


def test_of_two_writers_that_expect_the_same_etag_one_wins() -> None:
    objects = holding("x")
    store = MemoryStore()
    for key, body in objects.items():
        store.create(key, body)
    etag = sequence(store).head().etag
    promises = Promises(objects)
    expecting = tuple(Operation(name, name, expected_etag=etag) for name in "ab")
    promises.explore(expecting, 1)
    assert promises.ends == {("a",), ("b",)}


def test_of_two_writers_that_begin_a_sequence_one_wins() -> None:
    promises = Promises({})
    beginning = tuple(Operation(name, name, expected_etag=MUST_NOT_EXIST) for name in "ab")
    promises.explore(beginning, 1)
    assert promises.ends == {("a",), ("b",)}


@pytest.mark.slow  # tens of thousands of states
def test_three_replicas_without_losses() -> None:
    promises = Promises({})
    promises.explore((A, B, Operation("c", "c")), 0)
    assert len(promises.ends) == 6


@pytest.mark.slow  # tens of thousands of states
def test_a_child_that_two_replicas_begin_is_in_its_collection_once_and_only_when_it_has_a_document() -> None:
    class Listed(Promises):
        def check(self, state: State) -> None:
            super().check(state)
            if documents(state.objects):
                entries = [json.loads(body) for key, body in state.objects.items() if key.startswith("all/INDEX/000")]
                assert [entry["body"]["id"] for entry in entries] == ["log"], "a child that no listing shows"

        def finished(self, state: State) -> None:
            store = MemoryStore()
            for key, body in state.objects.items():
                store.create(key, body)
            assert collection(store).ids() == (["log"] if documents(state.objects) else [])
            super().finished(state)

    promises = Listed({}, child)
    promises.explore((A, B), 1)
    assert promises.ends == {("a", "b"), ("b", "a")}
