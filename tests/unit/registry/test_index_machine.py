"""Writers, crashes, two indexes and watchers in any order, against reading the store directly."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from terroir.common.clock import FixedClock
from terroir.registry.index.changes import change_of
from terroir.store.documents import Collection
from terroir.store.errors import StoreUnavailable
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.index_kit import Replica, body_for, fold_of, fold_of_store
from tests.unit.store.faulty_store import Fault, FaultyStore, Plan

REPLICAS = st.integers(0, 1)
SEQUENCES = st.sampled_from(["adapters/a", "adapters/b", "aliases/a", "bases/tiny", "regions"])
OPERATIONS = st.integers(0, 30).map(lambda number: f"op-{number}")
PLANS = st.builds(
    Plan,
    operation=st.sampled_from(["get", "create", "put", "exists"]),
    at=st.integers(1, 3),
    fault=st.sampled_from(Fault),
    key_part=st.sampled_from(["", "journal", "adapters", "OPS", "HEAD"]),
)


class IndexMachine(RuleBasedStateMachine):
    """Whatever happens, an index that has caught up knows what the store holds, and watchers have heard of it all.

    A watcher may hear of a change twice, but never less than once, also if it moves to the other replica at any moment.
    """

    @initialize()
    def open(self) -> None:
        self.memory = MemoryStore()
        self.clock = FixedClock()
        self.stores = [FaultyStore(self.memory) for _ in range(2)]
        self.replicas = [Replica(store, self.clock) for store in self.stores]
        self.watcher = self.replicas[0].watch()
        self.told: list[str] = []
        self.announced: list[tuple[str, str]] = []

    @rule(replica=REPLICAS, plan=PLANS)
    def something_will_fail(self, replica: int, plan: Plan) -> None:
        self.stores[replica].plan(plan)

    @rule(replica=REPLICAS, sequence=SEQUENCES, op_id=OPERATIONS)
    def write(self, replica: int, sequence: str, op_id: str) -> None:
        try:
            document = self.replicas[replica].write(sequence, op_id)
        except StoreUnavailable:
            return
        self.stores[replica].heal()
        # Own writes are there at once, whatever others wrote in between (the store answers: it was just healed).
        self.replicas[replica].write(sequence, op_id)
        assert self.replicas[replica].index.number(sequence) >= document.number

    @rule(replica=REPLICAS, sequence=SEQUENCES, op_id=OPERATIONS)
    def crash_between_hint_and_write(self, replica: int, sequence: str, op_id: str) -> None:
        """Also a writer that is just slow: it may come back."""
        self.stores[replica].heal()
        self.replicas[replica].journal.announce(sequence, op_id)
        self.announced.append((sequence, op_id))

    @rule()
    def a_slow_writer_comes_back(self) -> None:
        """Its process is another one, whose write this machine's replicas hear of by its hint alone."""
        if self.announced:
            sequence, op_id = self.announced.pop(0)
            collection, _, child = sequence.partition("/")
            if child:
                Collection(self.memory, collection, self.clock).sequence(child).append(
                    body_for(sequence, op_id), op_id=op_id
                )

    @rule(replica=REPLICAS)
    def look(self, replica: int) -> None:
        try:
            self.replicas[replica].live.refresh()
        except StoreUnavailable:
            return

    @rule(replica=REPLICAS)
    def keep_a_snapshot(self, replica: int) -> None:
        try:
            self.replicas[replica].live.write_snapshot()
        except StoreUnavailable:
            return

    @rule(replica=REPLICAS, cold=st.booleans())
    def restart(self, replica: int, cold: bool) -> None:
        if cold:
            for key in list(self.memory.list("index")):
                self.memory.delete(key)
        self.stores[replica].heal()
        if self.watcher._replica is self.replicas[replica]:
            self._move_watcher(1 - replica)
        self.replicas[replica] = Replica(self.stores[replica], self.clock)

    @rule(replica=REPLICAS)
    def the_watcher_moves(self, replica: int) -> None:
        self._move_watcher(replica)

    def _move_watcher(self, replica: int) -> None:
        for store in self.stores:
            store.heal()
        token = self.watcher.leave()
        self.told += [event.change.name for event in self.watcher.events]
        self.watcher = self.replicas[replica].watch(token)

    @invariant()
    def who_has_caught_up_knows_everything(self) -> None:
        for store in self.stores:
            store.heal()
        for replica in self.replicas:
            # A copy of the replica would be needed to look without changing what is tested, so look rarely.
            if replica.journal.last() % 5 == 4:
                replica.live.refresh()
                assert fold_of(replica.index) == fold_of_store(self.memory)

    def teardown(self) -> None:
        for store in self.stores:
            store.heal()
        expected = fold_of_store(self.memory)
        for replica in self.replicas:
            replica.live.refresh()
            assert fold_of(replica.index) == expected
        assert fold_of(Replica(self.memory, self.clock).index) == expected
        self._nothing_was_kept_from_the_watcher()

    def _nothing_was_kept_from_the_watcher(self) -> None:
        told = {*self.told, *self.watcher.take()}
        for collection in ("adapters", "aliases", "bases"):
            sequences = Collection(self.memory, collection, self.clock)
            for child in sequences.ids():
                for document in sequences.sequence(child).history():
                    change = change_of(f"{collection}/{child}", document)
                    assert change is not None
                    assert change.name in told


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
