"""The queue's view of all jobs: as fresh as the store, for one read when nothing has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.common.clock import FixedClock
from terroir.store import journal
from terroir.store.documents import Collection
from terroir.store.obstore_driver import MemoryStore
from terroir.training.jobs.documents import JOURNAL, PREFIX, Job, Jobs, JobState
from terroir.training.jobs.queue import Queue
from terroir.training.jobs.queue_plan import QueueLimits
from terroir.training.jobs.view import JobsView
from terroir.training.scheduling.model import Capacity
from tests.unit.training.test_queue import MemoryRay, order


class Counting(MemoryStore):
    """Counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def get(self, key: str) -> bytes:
        self.calls["get"] += 1
        return super().get(key)

    def exists(self, key: str) -> bool:
        self.calls["exists"] += 1
        return super().exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        raise AssertionError("no LIST on a hot path")


class World:
    """One store; writers and readers are processes of their own."""

    def __init__(self) -> None:
        self.store, self.clock = Counting(), FixedClock()
        self.writer = Jobs(self.store, self.clock)

    def view(self) -> JobsView:
        return JobsView(Jobs(self.store, self.clock), self.clock)

    def create(self, count: int) -> list[Job]:
        made = []
        for number in range(count):
            self.clock.advance(1)
            made.append(self.writer.create(f"r{number}", adapter="a", base="b", dataset_version="d", config_yaml=""))
        return made

    def create_one(self, request: str) -> list[Job]:
        self.clock.advance(1)
        return [self.writer.create(request, adapter="a", base="b", dataset_version="d", config_yaml="")]


@pytest.fixture
def world() -> World:
    return World()


def test_what_was_there_before_and_what_others_write_later_is_seen(world: World) -> None:
    first, second = world.create(2)
    view = world.view()
    view.refresh()
    assert view.open() == [first, second]
    world.writer.end(first.id, "end", JobState.CANCELLED)
    (_, _, third) = world.create(3)
    view.refresh()
    assert view.open() == [second, third] and len(view.all()) == 3
    assert (view.get(first.id) or first).state is JobState.CANCELLED


def test_a_thousand_jobs_in_which_nothing_changes_cost_a_handful_of_reads(world: World) -> None:
    world.create(1000)
    view = world.view()
    view.refresh()
    world.clock.advance(5)
    for _ in range(150):  # the sweep comes round
        view.refresh()
    world.store.calls.clear()
    for _ in range(10):
        view.refresh()
    assert world.store.calls.total() == 10


def test_own_writes_are_seen_at_once(world: World) -> None:
    jobs = Jobs(world.store, world.clock)
    view = JobsView(jobs, world.clock)
    view.refresh()
    job = jobs.create("own", adapter="a", base="b", dataset_version="d", config_yaml="")
    assert view.open() == [job]


def test_a_write_that_comes_long_after_its_announcement_is_seen(world: World) -> None:
    (job,) = world.create(1)
    view = world.view()
    view.refresh()
    world.writer.journal.announce(f"{PREFIX}/{job.id}", "slow")
    world.clock.advance(60)
    view.refresh()
    quiet = Collection(world.store, PREFIX, world.clock)  # the write itself, without a second announcement
    body = quiet.sequence(job.id).head().body
    quiet.sequence(job.id).append(body | {"lost_attempts": 1}, op_id="slow")
    world.clock.advance(31)
    view.refresh()
    assert (view.get(job.id) or job).lost_attempts == 1


def test_what_older_processes_write_unannounced_is_found_within_a_minute(world: World) -> None:
    (job,) = world.create(1)
    view = world.view()
    view.refresh()
    quiet = Collection(world.store, PREFIX, world.clock)
    body = quiet.sequence(job.id).head().body
    quiet.sequence(job.id).append(body | {"lost_attempts": 1}, op_id="old driver")
    quiet.sequence("job-unannounced").append(body | {"id": "job-unannounced"}, op_id="old replica")
    for _ in range(2):
        world.clock.advance(31)
        view.refresh()
    assert (view.get(job.id) or job).lost_attempts == 1
    assert view.get("job-unannounced") is not None


def test_a_change_whose_writer_died_before_it_is_given_up_after_an_hour(world: World) -> None:
    (job,) = world.create(1)
    view = world.view()
    view.refresh()
    world.writer.journal.announce(f"{PREFIX}/{job.id}", "never")
    view.refresh()
    world.clock.advance(3601)
    view.refresh()
    for _ in range(3):
        view.refresh()
    world.store.calls.clear()
    view.refresh()
    assert world.store.calls.total() <= 2 and view.open() == [job]


def test_a_document_of_before_these_fields_has_their_defaults(world: World) -> None:
    (job,) = world.create(1)
    old = world.writer.documents(job.id).head().body
    for name in ("wish", "history", "preempt_for", "not_before"):
        del old[name]
    Collection(world.store, PREFIX, world.clock).sequence("job-old").append(old | {"id": "job-old"}, op_id="x")
    assert world.writer.get("job-old") == replace(job, id="job-old", etag=world.writer.get("job-old").etag)


CHANGES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(("end", "again", "create"))), min_size=40, max_size=90)


@settings(max_examples=25, deadline=None)
@given(CHANGES)
def test_a_reader_that_slept_through_trims_sees_what_one_sees_that_did_not(changes: list[tuple[int, str]]) -> None:
    """Over two to four days of changes, an hour apart; what has ended nobody looks at unasked."""
    world = World()
    jobs = world.create(4)
    for job in jobs:
        world.writer.end(job.id, "end", JobState.CANCELLED)
    awake, asleep = world.view(), world.view()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_KEPT", 8)
        patch.setattr(journal, "_BLOCK", 4)
        for view in (awake, asleep):
            view.refresh()
        for number, (which, change) in enumerate(changes):
            world.clock.advance(3600)
            if change == "create":
                jobs += world.create_one(f"later-{number}")
            elif change == "end":
                world.writer.end(jobs[which].id, f"end-{number}", JobState.FAILED)
            else:
                world.writer.change(jobs[which].id, f"again-{number}", lambda job: replace(job, state=JobState.QUEUED))
            awake.refresh()
            while world.writer.trim_journal():
                pass
        asleep.refresh()
    assert asleep.all() == awake.all() == [world.writer.get(job.id) for job in jobs]
    assert asleep.open() == awake.open()


def test_a_queue_trims_what_was_announced_more_than_a_day_ago(world: World) -> None:
    (job,) = world.create(1)
    for number in range(1200):
        world.writer.journal.announce(f"{PREFIX}/{job.id}", f"never-{number}")
    world.clock.advance(23 * 3600)
    queue = Queue(Jobs(world.store, world.clock), MemoryRay(), order, QueueLimits(Capacity(1)), world.clock)
    queue.tick()
    assert world.store.exists(f"{JOURNAL}/{3:020d}.json")
    world.clock.advance(2 * 3600)
    queue.tick()
    queue.tick()
    assert not world.store.exists(f"{JOURNAL}/{3:020d}.json") and world.store.exists(f"{JOURNAL}/{100:020d}.json")
    world.clock.advance(61)
    queue.tick()
    assert not world.store.exists(f"{JOURNAL}/{100:020d}.json")
