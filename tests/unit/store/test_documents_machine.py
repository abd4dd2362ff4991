"""Several writers with lost requests and responses, against the model of a plain list."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from terroir.common.clock import FixedClock
from terroir.store.documents import DocumentSequence
from terroir.store.errors import EtagMismatch, NotFound, OperationConflict, StoreUnavailable
from terroir.store.obstore_driver import MemoryStore
from tests.unit.store.faulty_store import Fault, FaultyStore, Plan

WRITERS = st.integers(0, 2)
OPERATIONS = st.integers(0, 11)
PLANS = st.builds(
    Plan,
    operation=st.sampled_from(["get", "create", "put"]),
    at=st.integers(1, 4),
    fault=st.sampled_from(Fault),
    key_part=st.sampled_from(["", ".json", "OPS", "HEAD"]),
)


class SequenceMachine(RuleBasedStateMachine):
    """Model: op ids in the order in which they took effect.

    An append that raised StoreUnavailable may or may not have taken effect; the store itself then says which, and
    from there on it must keep to that.
    """

    @initialize()
    def open(self) -> None:
        self.memory = MemoryStore()
        self.stores = [FaultyStore(self.memory) for _ in range(3)]
        self.model: list[str] = []
        self.etags: dict[str, str] = {}

    def sequence(self, writer: int) -> DocumentSequence:
        return DocumentSequence(self.stores[writer], "log", FixedClock())

    def settle_unknown(self, op_id: str) -> None:
        history = [d.op_id for d in DocumentSequence(self.memory, "log", FixedClock()).history()]
        assert history in (self.model, [*self.model, op_id])
        self.model = history

    @rule(writer=WRITERS, plan=PLANS)
    def something_will_fail(self, writer: int, plan: Plan) -> None:
        self.stores[writer].plan(plan)

    @rule(writer=WRITERS, operation=OPERATIONS)
    def append(self, writer: int, operation: int) -> None:
        op_id = f"op-{operation}"
        try:
            document = self.sequence(writer).append({"op": operation}, op_id=op_id)
        except StoreUnavailable:
            self.settle_unknown(op_id)
            return
        if op_id not in self.model:
            self.model.append(op_id)
        assert document.number == self.model.index(op_id) + 1
        assert self.etags.setdefault(op_id, document.etag) == document.etag

    @rule(writer=WRITERS, operation=OPERATIONS, stale=st.booleans())
    def append_if_unchanged(self, writer: int, operation: int, stale: bool) -> None:
        op_id = f"op-{operation}"
        head = self.model[-1] if self.model else None
        etag = "stale" if stale else (self.current_etag() if head else "")
        try:
            document = self.sequence(writer).append({"op": operation}, op_id=op_id, expected_etag=etag)
        except StoreUnavailable:
            self.settle_unknown(op_id)
        except EtagMismatch:
            assert stale
            assert op_id not in self.model
        else:
            assert op_id in self.model or not stale
            if op_id not in self.model:
                self.model.append(op_id)
            assert document.number == self.model.index(op_id) + 1

    @rule(writer=WRITERS, operation=OPERATIONS)
    def reuse_an_op_id_for_another_request(self, writer: int, operation: int) -> None:
        op_id = f"op-{operation}"
        if op_id not in self.model:
            return
        try:
            self.sequence(writer).append({"op": "another"}, op_id=op_id)
        except (OperationConflict, StoreUnavailable):
            return
        raise AssertionError(f"{op_id} did two requests")

    @rule(garbage=st.sampled_from([None, b"", b"garbage", b"9-" + b"0" * 32]))
    def the_hint_is_lost_or_overwritten(self, garbage: bytes | None) -> None:
        if garbage is None:
            self.memory.delete("log/HEAD")
        else:
            self.memory.put("log/HEAD", garbage)

    @rule(data=st.data())
    def the_hint_falls_back(self, data: st.DataObject) -> None:
        """Two writers' puts of HEAD may arrive in either order, so an older value may be the last."""
        if self.model and self.memory.exists("log/HEAD"):
            hint = self.memory.get("log/HEAD").partition(b"-")[0]
            newest = int(hint) if hint.isdigit() and int(hint) <= len(self.model) else 0
            if newest:
                number = data.draw(st.integers(1, newest))
                self.memory.put("log/HEAD", self.healthy().get(number).etag.encode())

    def healthy(self) -> DocumentSequence:
        return DocumentSequence(self.memory, "log", FixedClock())

    def current_etag(self) -> str:
        return self.healthy().head().etag

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        assert [document.op_id for document in self.healthy().history()] == self.model
        try:
            head = self.healthy().head()
        except NotFound:
            assert self.model == []
        else:
            assert (head.number, head.op_id) == (len(self.model), self.model[-1])


TestSequenceMachine = SequenceMachine.TestCase
TestSequenceMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
