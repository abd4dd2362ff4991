"""The index of a replica: starts, outages, snapshots, and what it does about damage."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest
from structlog.testing import capture_logs

from terroir.common.clock import FixedClock
from terroir.registry.index.live import IndexPolicy
from terroir.registry.index.watch_token import WatchPosition
from terroir.store.blobs import Blobs
from terroir.store.documents import DocumentSequence
from terroir.store.errors import StoreUnavailable
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.index_kit import Replica, fold_of, fold_of_store, state_body
from tests.unit.store.faulty_store import Fault, FaultyStore, Plan


class Outage(FaultyStore):
    """A store that can be unreachable for a while."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.down = False

    def _due(self, operation: str, key: str) -> Fault | None:
        return Fault.LOST_REQUEST if self.down else super()._due(operation, key)


def stocked() -> MemoryStore:
    store = MemoryStore()
    replica = Replica(store)
    replica.publish("jiangnan")
    replica.publish("jiangnan")
    replica.publish("sichuan", tags=["ink"])
    replica.write("aliases/jiangnan", "set-1", state_body({"production": 1}))
    replica.write("bases/tiny", "base")
    replica.write("regions", "put-cn")
    return store


def test_a_start_without_a_snapshot_reads_every_document() -> None:
    store = stocked()
    assert fold_of(Replica(store).index) == fold_of_store(store)


def test_a_start_from_a_snapshot_reads_the_tail_alone() -> None:
    store = stocked()
    first = Replica(store)
    first.live.write_snapshot()
    first.publish("hebei")

    class CountingStore(FaultyStore):
        reads = 0

        def get(self, key: str) -> bytes:
            CountingStore.reads += key.startswith(("adapters/jiangnan", "adapters/sichuan", "aliases", "bases"))
            return super().get(key)

    second = Replica(CountingStore(store))
    assert fold_of(second.index) == fold_of_store(store)
    assert CountingStore.reads == 0


def test_a_store_without_a_journal_starts_as_a_registry() -> None:
    """A bucket that was copied without its journal, or with an older one, holds every document all the same."""
    store = stocked()
    Replica(store).live.write_snapshot()
    for key in list(store.list("journal")):
        store.delete(key)
    with capture_logs() as logs:
        replica = Replica(store)
    assert "snapshot_of_another_journal" in {entry["event"] for entry in logs}
    assert fold_of(replica.index) == fold_of_store(store)
    replica.publish("hebei")
    other = Replica(store)
    assert fold_of(other.index) == fold_of_store(store)


@pytest.mark.parametrize("damage", ["blob", "missing blob", "entry", "format"])
def test_a_snapshot_that_cannot_be_used_costs_a_rebuild_and_nothing_else(damage: str) -> None:
    store = stocked()
    Replica(store).live.write_snapshot()
    snapshots = DocumentSequence(store, "index/snapshots", FixedClock())
    body = snapshots.head().body
    blob = f"blobs/sha256/{body['blob'][:2]}/{body['blob']}"
    if damage == "blob":
        store.put(blob, b"another")
    elif damage == "missing blob":
        store.delete(blob)
    elif damage == "entry":
        store.put(f"index/snapshots/{1:020d}.json", b"{")
    else:
        snapshots.append({**body, "format": 99}, op_id="from-a-later-release")
    assert fold_of(Replica(store).index) == fold_of_store(store)


def test_snapshots_are_written_after_enough_changes_or_enough_time_and_only_then() -> None:
    store, clock = MemoryStore(), FixedClock()
    policy = IndexPolicy(poll_seconds=60, snapshot_changes=3, snapshot_seconds=100, rebuild_parallel_reads=1)
    replica = Replica(store, clock, policy)
    snapshots = DocumentSequence(store, "index/snapshots", clock)
    replica.publish("a")
    replica.live.refresh()
    assert not snapshots.exists()
    replica.publish("b")
    replica.publish("c")
    replica.live.refresh()
    assert snapshots.head().number == 1
    clock.advance(1000)
    replica.live.refresh()
    assert snapshots.head().number == 1
    replica.publish("d")
    replica.live.refresh()
    assert snapshots.head().number == 2


def test_replicas_do_not_all_write_the_same_snapshot() -> None:
    store = stocked()
    first, second = Replica(store), Replica(store)
    first.live.write_snapshot()
    second.live.write_snapshot()
    assert DocumentSequence(store, "index/snapshots", FixedClock()).head().number == 1


def test_only_the_two_newest_snapshots_keep_their_blobs() -> None:
    store = MemoryStore()
    policy = IndexPolicy(poll_seconds=60, snapshot_changes=1, snapshot_seconds=100, rebuild_parallel_reads=1)
    replica = Replica(store, policy=policy)
    for name in ("a", "b", "c", "d"):
        replica.publish(name)
        replica.live.refresh()
    entries = [each.body["blob"] for each in DocumentSequence(store, "index/snapshots", FixedClock()).history()]
    assert [Blobs(store).exists(digest) for digest in entries] == [False, False, True, True]


def test_reads_go_on_from_memory_while_the_store_is_away_and_the_index_says_how_old_it_is() -> None:
    clock, store = FixedClock(), Outage(stocked())
    replica = Replica(store, clock)
    store.down = True
    clock.advance(7)
    with pytest.raises(StoreUnavailable):
        replica.live.refresh()
    with pytest.raises(StoreUnavailable):
        replica.publish("hebei")
    found = replica.index.version("jiangnan", 2)
    assert found is not None
    assert found.number == 2
    assert replica.live.stale_seconds() == 7
    store.down = False
    replica.live.refresh()
    assert replica.live.stale_seconds() == 0


def test_an_own_write_is_there_even_if_others_wrote_in_between() -> None:
    store = stocked()
    first, second = Replica(store), Replica(store)
    first.publish("jiangnan")
    second.write("adapters/jiangnan", "late")
    assert second.index.number("adapters/jiangnan") == 4


def test_a_hint_whose_write_never_came_is_given_up_after_an_hour() -> None:
    store, clock = MemoryStore(), FixedClock()
    replica = Replica(store, clock)
    replica.journal.announce("adapters/ghost", "never")
    replica.live.refresh()
    assert len(replica.live.follower.place()[1]) == 1
    clock.advance(3599)
    replica.live.refresh()
    assert len(replica.live.follower.place()[1]) == 1
    clock.advance(2)
    replica.live.refresh()
    assert replica.live.follower.place()[1] == []


def test_pending_hints_outlive_a_restart_from_a_snapshot() -> None:
    store = MemoryStore()
    first = Replica(store)
    first.journal.announce("adapters/slow", "slow-1")
    first.live.refresh()
    first.live.write_snapshot()
    second = Replica(store)
    assert [each.hint.op_id for each in second.live.follower.place()[1]] == ["slow-1"]
    DocumentSequence(store, "adapters/slow", FixedClock()).append(
        Replica(MemoryStore()).publish("x").body, op_id="slow-1"
    )
    second.live.refresh()
    assert second.index.number("adapters/slow") == 1
    assert second.live.follower.place()[1] == []


def test_a_pending_sequence_is_looked_at_ever_less_often() -> None:
    """A lost race leaves a hint that never comes true; an hour of looks five times a second would be a load."""
    looks = 0

    class CountingStore(FaultyStore):
        def get(self, key: str) -> bytes:
            nonlocal looks
            looks += key.startswith("adapters/ghost/0")
            return super().get(key)

    clock = FixedClock()
    replica = Replica(CountingStore(MemoryStore()), clock)
    replica.journal.announce("adapters/ghost", "never")
    for _ in range(5 * 600):
        replica.live.refresh()
        clock.advance(0.2)
    assert looks < 150


@pytest.mark.parametrize("key", [f"journal/{2:020d}.json", f"adapters/b/{1:020d}.json"])
def test_a_damaged_object_does_not_stop_the_index(key: str) -> None:
    store = MemoryStore()
    reader, writer = Replica(store), Replica(store)
    for name in ("a", "b", "c"):
        writer.publish(name)
    store.put(key, b"{")
    with capture_logs() as logs:
        reader.live.refresh()
    assert any(entry["log_level"] == "error" for entry in logs)
    assert [reader.index.number(f"adapters/{name}") for name in ("a", "c")] == [1, 1]


def test_the_thread_follows_recovers_and_ends() -> None:
    store = Outage(MemoryStore())
    policy = IndexPolicy(poll_seconds=0.01, snapshot_changes=10**6, snapshot_seconds=10**6, rebuild_parallel_reads=1)
    replica, writer = Replica(store, policy=policy), Replica(store)
    replica.live.start()
    try:
        told = replica.watch()
        writer.publish("a")
        _until(lambda: told.take() == ["adapters/a/versions/1"])
        store.down = True
        store.down = False
        writer.publish("b")
        _until(lambda: replica.index.knows("b"))
    finally:
        replica.live.stop()
    assert replica.live._thread is not None
    assert not replica.live._thread.is_alive()


def _until(holds: Callable[[], bool]) -> None:
    end = monotonic() + 10
    while not holds():
        assert monotonic() < end, "did not happen within ten seconds"


def test_too_many_pending_entries_make_a_token_that_tells_some_twice_rather_than_a_huge_one() -> None:
    place = WatchPosition.of(10_000, set(range(5_000, 5_300)))
    assert place == WatchPosition(4_999)
    assert WatchPosition.parse(place.token()) == place


def test_a_write_that_lost_its_answer_is_heard_of() -> None:
    store = FaultyStore(MemoryStore(), Plan("create", 1, Fault.LOST_RESPONSE, "adapters/a/0"))
    writer, reader = Replica(store), Replica(store)
    with pytest.raises(StoreUnavailable):
        writer.publish("a")
    reader.live.refresh()
    assert reader.index.number("adapters/a") == 1


@pytest.mark.parametrize("place", ["adapters/b", "aliases/a", "adapters/INDEX"])
@pytest.mark.parametrize("damaged", [b"{", b'{"of another release":1}'])
def test_a_damaged_document_does_not_stop_a_start(place: str, damaged: bytes) -> None:
    store = MemoryStore()
    writer = Replica(store)
    for name in ("a", "b", "c"):
        writer.publish(name)
    writer.write("aliases/a", "set", state_body({"production": 1}))
    store.put(f"{place}/{1:020d}.json", damaged)
    found = Replica(store).index
    assert found.knows("c")


def test_a_version_of_another_form_is_logged_and_holds_up_nothing_but_its_adapter() -> None:
    store = MemoryStore()
    reader, writer = Replica(store), Replica(store)
    DocumentSequence(store, "adapters/odd", FixedClock(), log=writer.journal).append({"form": 9}, op_id="odd")
    writer.publish("even")
    with capture_logs() as logs:
        reader.live.refresh()
    assert any("not of this release's form" in entry.get("error", "") for entry in logs)
    assert reader.index.ids() == ["even"]
    assert fold_of(reader.index)["facets"]["base"] == {"tiny": ["even"]}
