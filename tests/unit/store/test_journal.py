"""The journal: hints of all writers, none lost, in one order, whatever fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.clock import FixedClock
from terroir.store import journal as module
from terroir.store.documents import Collection, Document, DocumentSequence
from terroir.store.errors import CorruptObject, EtagMismatch, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.journal import Hint, Journal
from terroir.store.obstore_driver import MemoryStore
from tests.unit.store.faulty_store import Fault, FaultyStore, Plan


def journal_on(store: ObjectStore) -> Journal:
    return Journal(store, "journal", FixedClock())


def hints(journal: Journal, after: int = 0) -> list[Hint]:
    return [hint for entry in journal.after(after) for hint in entry.hints]


def test_a_write_is_announced_before_its_document_exists() -> None:
    store = MemoryStore()
    journal = journal_on(store)
    there_when_announced: list[bool] = []

    class SpiedStore(FaultyStore):
        def create(self, key: str, body: bytes) -> None:
            if key.startswith("journal/"):
                there_when_announced.append(sequence.exists())
            super().create(key, body)

    spied = Journal(SpiedStore(store), "journal", FixedClock())
    sequence = DocumentSequence(store, "adapters/jiangnan", FixedClock(), log=spied)
    sequence.append({}, op_id="publish-1")
    assert there_when_announced == [False]
    assert hints(journal) == [Hint("adapters/jiangnan", "publish-1")]


def test_a_repeated_operation_is_not_announced_again_but_told_to_listeners() -> None:
    """The retry may come to a replica that has not heard of the first try yet; its caller must see its own write."""
    store = MemoryStore()
    DocumentSequence(store, "log", FixedClock(), log=journal_on(store)).append({}, op_id="a")
    other, heard = journal_on(store), list[tuple[str, int]]()
    other.listen(lambda sequence, document: heard.append((sequence, document.number)))
    DocumentSequence(store, "log", FixedClock(), log=other).append({}, op_id="a")
    assert hints(other) == [Hint("log", "a")]
    assert heard == [("log", 1)]


def test_a_refused_write_is_not_announced() -> None:
    store = MemoryStore()
    journal = journal_on(store)
    sequence = DocumentSequence(store, "log", FixedClock(), log=journal)
    with pytest.raises(EtagMismatch):
        sequence.append({}, op_id="a", expected_etag="1-" + "0" * 32)
    assert hints(journal) == []


def test_nothing_is_written_when_the_hint_cannot_be() -> None:
    store = FaultyStore(MemoryStore(), Plan("create", 1, Fault.LOST_REQUEST, "journal"))
    sequence = DocumentSequence(store, "log", FixedClock(), log=journal_on(store))
    with pytest.raises(StoreUnavailable):
        sequence.append({}, op_id="a")
    assert not sequence.exists()
    sequence.append({}, op_id="a")
    assert sequence.head().number == 1


@pytest.mark.parametrize("fault", list(Fault))
def test_a_fault_in_the_journal_leaves_no_gap_and_loses_no_hint(fault: Fault) -> None:
    store = FaultyStore(MemoryStore(), Plan("create", 2, fault))
    journal = journal_on(store)
    for op_id in ("a", "b", "c"):
        try:
            journal.announce("log", op_id)
        except StoreUnavailable:
            journal.announce("log", op_id)
    found = list(journal_on(store).after(0))
    assert [entry.number for entry in found] == list(range(1, len(found) + 1))
    assert {hint.op_id for entry in found for hint in entry.hints} == {"a", "b", "c"}


@given(st.lists(st.integers(0, 2), max_size=40))
def test_writers_that_know_nothing_of_each_other_share_one_gapless_order(turns: list[int]) -> None:
    store = MemoryStore()
    journals = [journal_on(store) for _ in range(3)]
    for number, writer in enumerate(turns):
        journals[writer].announce("log", f"op-{number}")
    assert [hint.op_id for hint in hints(journal_on(store))] == [f"op-{number}" for number in range(len(turns))]


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_fresh_process_finds_the_newest_entry_in_few_looks(length: int, known: int) -> None:
    store = MemoryStore()
    writer = journal_on(store)
    for number in range(length):
        writer.announce("log", str(number))
    reader = journal_on(store)
    for _ in reader.after(length - min(known, length)):
        break  # knows some entry, perhaps
    assert reader.last() == length


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_KEPT", 5)
        patch.setattr(module, "_BLOCK", 4)
        yield


TURNS = st.tuples(st.integers(0, 2), st.integers(1, 20), st.integers(0, 40), st.integers(0, 12))
"""Who writes, how many entries, hours before, blocks trimmed after."""


@given(st.lists(TURNS, min_size=5, max_size=20))
def test_a_trimmed_journal_goes_on_where_it_was(small_blocks: None, turns: list[tuple[int, int, int, int]]) -> None:
    """Whoever writes, also after days of silence: each entry is the next one, and who comes new finds it."""
    store, clock = MemoryStore(), FixedClock()
    writers = [Journal(store, "journal", clock) for _ in range(3)]
    trimmer = Journal(store, "journal", clock)
    written = 0
    for writer, count, hours, trims in turns:
        clock.advance(hours * 3600)
        for _ in range(count):
            written += 1
            writers[writer].announce("log", f"op-{written}")
            entry = trimmer.find(written)
            assert entry is not None and entry.hints == (Hint("log", f"op-{written}"),)
        for _ in range(trims):
            trimmer.trim(timedelta(days=1))
            assert Journal(store, "journal", clock).last() == written
    newest = [f"op-{number}" for number in range(max(0, written - 5) + 1, written + 1)]
    assert [hint.op_id for hint in hints(trimmer, max(0, written - 5))] == newest


def test_a_writer_that_was_silent_while_what_it_knew_was_trimmed_writes_the_next_entry(small_blocks: None) -> None:
    """It went on after the last entry that it knew, where nobody looked any more."""
    store, clock = MemoryStore(), FixedClock()
    silent, busy = Journal(store, "journal", clock), Journal(store, "journal", clock)
    silent.announce("log", "op-1")
    for number in range(2, 201):
        busy.announce("log", f"op-{number}")
    clock.advance(90_000)
    while busy.trim(timedelta(days=1)):
        pass
    silent.announce("log", "op-201")
    assert hints(busy, 199) == [Hint("log", "op-200"), Hint("log", "op-201")]


def test_what_stays_of_a_trimmed_journal_is_the_newest_and_a_few_landmarks(small_blocks: None) -> None:
    store, clock = MemoryStore(), FixedClock()
    journal = Journal(store, "journal", clock)
    for number in range(1, 1001):
        journal.announce("log", f"op-{number}")
    assert not journal.trim(timedelta(days=1))
    clock.advance(90_000)
    while journal.trim(timedelta(days=1)):
        pass
    assert len(list(store.list("journal"))) <= 5 + 4 + 2 * 10


def test_an_interrupted_trim_is_taken_up(small_blocks: None) -> None:
    """Whatever of a block is gone, the newest is found, and the next trim deletes the rest."""
    for position in range(1, 5):
        store, clock = FaultyStore(MemoryStore(), Plan("delete", position, Fault.LOST_REQUEST)), FixedClock()
        journal = Journal(store, "journal", clock)
        for number in range(100):
            journal.announce("log", f"op-{number}")
        clock.advance(90_000)
        with pytest.raises(StoreUnavailable):
            while journal.trim(timedelta(days=1)):
                pass
        assert Journal(store, "journal", clock).last() == 100
        while journal.trim(timedelta(days=1)):
            pass
        assert len(list(store.list("journal"))) <= 5 + 4 + 2 * 7


def test_a_damaged_entry_is_trimmed_with_its_block(small_blocks: None) -> None:
    store, clock = MemoryStore(), FixedClock()
    journal = Journal(store, "journal", clock)
    for number in range(1, 21):
        journal.announce("log", f"op-{number}")
    store.put(f"journal/{3:020d}.json", b"{}")
    assert journal.trim(timedelta(days=1)) and not journal.trim(timedelta(days=1))


def test_hints_of_many_threads_share_entries_and_none_is_lost() -> None:
    class SlowStore(FaultyStore):
        def create(self, key: str, body: bytes) -> None:
            begun.wait(5)
            super().create(key, body)

    begun = threading.Event()
    store = SlowStore(MemoryStore())
    journal = journal_on(store)
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(journal.announce, "log", f"op-{number}") for number in range(32)]
        begun.set()
        for call in calls:
            call.result(10)
    found = list(journal.after(0))
    assert sorted(hint.op_id for entry in found for hint in entry.hints) == sorted(f"op-{n}" for n in range(32))
    assert len(found) <= 32


def test_a_damaged_entry_is_named() -> None:
    store = MemoryStore()
    key = f"journal/{1:020d}.json"
    for damaged in (b"", b"{}", b'{"number":2,"announced_at":"","hints":[]}', b'{"number":1,"hints":[{}]}'):
        store.put(key, damaged)
        with pytest.raises(CorruptObject, match=key):
            journal_on(store).find(1)


def test_children_of_a_collection_are_announced_under_their_own_names_and_its_index_is_not() -> None:
    store = MemoryStore()
    journal = journal_on(store)
    Collection(store, "adapters", FixedClock(), log=journal).sequence("jiangnan").append({}, op_id="a")
    assert hints(journal) == [Hint("adapters/jiangnan", "a")]
    stored = json.loads(store.get(f"journal/{1:020d}.json"))
    assert set(stored) == {"number", "announced_at", "hints"}


def test_an_operation_is_found_by_its_marker_behind_the_hint_or_not_at_all() -> None:
    store = MemoryStore()
    sequence = DocumentSequence(store, "log", FixedClock())
    written: list[Document] = [sequence.append({"n": number}, op_id=f"op-{number}") for number in range(4)]
    assert sequence.find_operation("op-1") == written[1]
    for key in list(store.list("log/OPS")):
        store.delete(key)
    store.delete("log/HEAD")
    assert sequence.find_operation("op-3") == written[3]
    assert sequence.find_operation("never") is None
