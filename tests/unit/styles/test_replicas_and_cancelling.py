"""Several replicas at one registration, people who change their minds, and every order in which that may happen."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from styles_kit import Killed, Replica, Room

from terroir.store.leases import LEASE_SECONDS, Leases
from terroir.training.jobs.documents import JobState
from terroir.training.styles.live import read_live
from terroir.training.styles.model import PHASES, Phase, Registration, State


def test_replicas_that_race_do_everything_once() -> None:
    room = Room()
    registration = room.begin()
    processes = [room.replica() for _ in range(4)]
    together = threading.Barrier(len(processes))

    def life(process: Replica) -> None:
        together.wait()
        for _ in range(200):
            if not process.run(registration):
                return
            with room.lock:
                room.work()

    threads = [threading.Thread(target=life, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = room.seen(registration)
    assert ended.state is State.SUCCEEDED
    assert len(room.jobs.ids()) == 1 and len(room.shelf.moves) == 1
    assert room.datasets.versions == {"ink-pictures": [3]}
    assert room.datasets.most_captioning == 1, "the lease keeps the captioner from being asked twice at once"


def test_a_lease_is_one_processs_until_it_gives_it_back_or_dies() -> None:
    room = Room()
    one, other = Leases(room.store, room.clock), Leases(room.store, room.clock)
    with one.held("k") as mine:
        assert mine
        with other.held("k") as also:
            assert not also
    with other.held("k") as mine:
        assert mine, "given back"
        room.clock.advance(LEASE_SECONDS + 1)
        with one.held("k") as mine_too:
            assert mine_too, "silent for too long: dead, as far as anybody can tell"


def test_a_lease_of_the_dead_holds_nobody_up_for_long() -> None:
    room = Room()
    registration = room.begin()
    process = room.replica()
    room.datasets.before_picture = lambda: process.fate.__setattr__("dead", True)
    with pytest.raises(Killed):
        process.run(registration)
    room.datasets.before_picture = lambda: None
    assert room.replica().run(registration)
    assert room.seen(registration).phase is Phase.CAPTIONING, "somebody may still be at it"
    room.clock.advance(LEASE_SECONDS + 1)
    room.replica().run(registration)
    assert room.seen(registration).phase is Phase.QUEUED


def test_cancelled_before_its_job_it_ends_at_once() -> None:
    room = Room()
    registration = room.begin()
    room.registrations.request_cancel(registration)
    assert not room.replica().run(registration)
    ended = room.seen(registration)
    assert (ended.state, ended.phase, ended.cancel_requested) == (State.CANCELLED, Phase.IMPORTING, True)
    assert room.datasets.captioned == {} and room.jobs.ids() == []


def test_cancelled_while_pictures_are_captioned_it_stops_at_the_next_picture_and_keeps_what_there_is() -> None:
    room = Room()
    registration = room.begin()
    seen: list[int] = []

    def somebody_cancels() -> None:
        seen.append(1)
        room.clock.advance(1)
        if len(seen) == 2:
            room.registrations.request_cancel(room.seen(registration))

    room.datasets.before_picture = somebody_cancels
    assert not room.replica().run(registration)
    assert room.seen(registration).state is State.CANCELLED
    assert room.datasets.captioned == {"ink-pictures": 2}
    assert read_live(room.store, registration).done == 2


@pytest.mark.parametrize("outcome", [JobState.CANCELLED, JobState.SUCCEEDED])
def test_cancelled_with_a_job_it_ends_with_the_job_and_stages_nothing(outcome: JobState) -> None:
    """A job that is past stopping may publish all the same."""
    room = Room()
    registration = room.begin()
    room.replica().run(registration)
    job = room.jobs.get(room.seen(registration).job)
    room.jobs.change(job.id, "running", lambda head: head.__class__(**head.__dict__ | {"dispatched": True}))
    room.registrations.request_cancel(room.seen(registration))
    assert room.replica().run(registration), "it waits for its job"
    assert room.jobs.get(job.id).cancel_requested
    room.shelf.adapters["ink"] = ["CN-ZJ"]
    version = "adapters/ink/versions/1" if outcome is JobState.SUCCEEDED else ""
    room.jobs.end(job.id, "end/1", outcome, adapter_version=version)
    assert not room.replica().run(registration)
    ended = room.seen(registration)
    assert (ended.state, ended.adapter_version) == (State.CANCELLED, version)
    assert room.shelf.aliases == {}


class AnyOrder(RuleBasedStateMachine):
    """Two replicas, Ray, a person and death in any order."""

    @initialize()
    def begin(self) -> None:
        self.room = Room()
        self.registration = self.room.begin()
        self.processes = [self.room.replica(), self.room.replica()]
        self.ended: Registration | None = None

    @rule(which=st.integers(0, 1), calls=st.integers(1, 60), after=st.booleans())
    def a_replica_is_killed_on_its_way(self, which: int, calls: int, after: bool) -> None:
        """At that call, be it in this look or in a later one."""
        self.processes[which] = self.room.replica(calls, after=after)
        self.a_replica_looks(which)

    @rule(which=st.integers(0, 1))
    def a_replica_looks(self, which: int) -> None:
        try:
            self.processes[which].run(self.registration)
        except Killed:
            self.processes[which] = self.room.replica()

    @rule(state=st.sampled_from([JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED]))
    def ray_works(self, state: JobState) -> None:
        self.room.work(state)

    @rule()
    def time_passes(self) -> None:
        self.room.clock.advance(21)

    @rule(mind=st.integers(0, 5))
    def somebody_may_cancel(self, mind: int) -> None:
        if mind == 0:
            self.room.registrations.request_cancel(self.room.seen(self.registration))

    @invariant()
    def it_goes_forward_and_ends_once(self) -> None:
        if not hasattr(self, "room"):
            return
        now = self.room.seen(self.registration)
        order = [PHASES.index(begun.phase) for begun in now.phases]
        assert order == sorted(set(order)), "phases are entered in order, each once"
        if self.ended is not None:
            assert now == self.ended, "what has ended stays as it is"
        elif now.ended:
            self.ended = now
        assert len(self.room.jobs.ids()) <= 1
        staged = self.room.shelf.aliases.get("ink@staging", "")
        if now.state is State.SUCCEEDED:
            assert staged == now.adapter_version == "adapters/ink/versions/1"
        if now.state in (State.FAILED, State.CANCELLED):
            assert not staged

    def teardown(self) -> None:
        if not hasattr(self, "room"):
            return
        ended = self.room.finish(self.registration)
        assert ended.ended, "and it ends, whatever happened"
        if ended.state is State.CANCELLED:
            self.room.replica().run(self.registration)
            assert all(job.ended or job.cancel_requested for job in map(self.room.jobs.get, self.room.jobs.ids()))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
