"""The queue carries out what the policy decides: classes, quotas, room that is made, back-off, and why others wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_jobs import SubmissionStatus
from terroir.training.config.scheduling_keys import Priority
from terroir.training.jobs.attempts import Outcome
from terroir.training.jobs.documents import Job, JobState
from terroir.training.jobs.queue_plan import QueueLimits, avoided
from terroir.training.scheduling.model import Capacity, Node, Quota, Quotas, Rules, WaitReason
from terroir.training.scheduling.wishes import Wish
from tests.unit.training.test_queue import House

LOW, HIGH = Wish(priority=Priority.LOW), Wish(priority=Priority.HIGH)


def one_at_a_time(**changes: object) -> House:
    """A house whose Ray takes one job."""
    limits = QueueLimits(Capacity(1), rules=Rules(min_run_seconds=0), retry_backoff_seconds=10)
    return House(limits=replace(limits, **changes))  # type: ignore[arg-type]  # names and types are those of the limits


def given(house: House) -> list[str]:
    """Identifiers of jobs in the order in which Ray got them."""
    return [order.job_id for order in house.ray.orders]


def stop(house: House, job: Job, attempt: int) -> None:
    """What the driver of an attempt writes that was asked to make room and has saved its checkpoint."""
    house.jobs.requeue(job.id, f"preempted/{attempt}", attempt, Outcome.PREEMPTED, "made room")
    house.ray.submissions[f"{job.id}-{attempt}"] = SubmissionStatus.SUCCEEDED


def finish(house: House, job: Job, attempt: int = 1) -> None:
    house.jobs.end(job.id, f"end/{attempt}", JobState.SUCCEEDED, attempt=attempt)
    house.ray.submissions[f"{job.id}-{attempt}"] = SubmissionStatus.SUCCEEDED


def lose(house: House, job: Job, attempt: int, node: str = "") -> None:
    """A worker began on a node, and its driver failed."""
    house.jobs.change(
        job.id,
        f"node/{attempt}",
        lambda j: replace(j, attempt=replace(j.attempt, worker_pid=7, node_id=node)) if j.attempt else j,
    )
    house.ray.submissions[f"{job.id}-{attempt}"] = SubmissionStatus.FAILED


def test_a_high_job_goes_before_those_that_came_first_and_the_others_are_told_why_they_wait() -> None:
    house = one_at_a_time()
    jobs = [house.create("first"), house.create("low", LOW), house.create("high", HIGH)]
    house.queue.tick()
    assert given(house) == [jobs[2].id]
    waits = house.queue.standing.waits
    assert list(waits) == [jobs[0].id, jobs[1].id] and [wait.position for wait in waits.values()] == [1, 2]
    assert waits[jobs[0].id].reason is WaitReason.JOB_LIMIT and "max_running_jobs" in waits[jobs[0].id].detail


def test_a_team_gets_its_quota_and_no_more_however_much_is_free() -> None:
    quotas = Quotas({"tea": Quota(jobs=1)})
    house = House(limits=QueueLimits(Capacity(10), quotas))
    tea = [house.create(f"t{number}", Wish(team="tea")) for number in range(3)]
    other = house.create("other", Wish(team="rice"))
    house.queue.tick()
    assert given(house) == [tea[0].id, other.id]
    assert house.queue.standing.waits[tea[1].id].reason is WaitReason.QUOTA
    finish(house, tea[0])
    house.queue.tick()
    assert given(house)[2:] == [tea[1].id]


def test_a_running_job_makes_room_for_a_more_urgent_one_and_goes_on_afterwards_with_nothing_held_against_it() -> None:
    house = one_at_a_time()
    low = house.create("low", LOW)
    house.queue.tick()
    house.run(low, 1)
    high = house.create("high", HIGH)
    house.queue.tick()
    assert house.jobs.get(low.id).preempt_for == high.id
    assert house.queue.standing.waits[high.id].reason is WaitReason.PREEMPTING
    house.queue.tick()
    assert given(house) == [low.id], "nothing is started before the room is free"
    stop(house, low, 1)
    house.queue.tick()
    assert given(house) == [low.id, high.id]
    waiting = house.jobs.get(low.id)
    assert (waiting.state, waiting.lost_attempts, waiting.preempt_for) == (JobState.QUEUED, 0, "")
    finish(house, high)
    house.queue.tick()
    assert given(house) == [low.id, high.id, low.id]
    assert [(past.number, past.outcome) for past in house.jobs.get(low.id).history] == [(1, Outcome.PREEMPTED)]


def test_a_job_that_is_not_to_be_pre_empted_runs_on() -> None:
    house = one_at_a_time()
    low = house.create("low", replace(LOW, preemptible=False))
    house.queue.tick()
    house.create("high", HIGH)
    house.queue.tick()
    assert not house.jobs.get(low.id).preempt_for


def test_a_driver_that_does_not_make_room_in_time_is_ended_by_ray_and_that_is_no_loss() -> None:
    house = one_at_a_time(make_room_seconds=60.0)
    low = house.create("low", LOW)
    house.queue.tick()
    house.jobs.change(low.id, "begun", lambda j: replace(j, attempt=replace(j.attempt, started=j.attempt.since)))  # type: ignore[type-var, union-attr]  # it has one
    high = house.create("high", HIGH)
    for _ in range(2):
        house.queue.tick()
    house.clock.advance(31)
    house.queue.tick()
    assert not house.ray.stopped
    house.clock.advance(61)
    house.queue.tick()
    assert house.ray.stopped == [f"{low.id}-1"]
    house.queue.tick()
    assert given(house) == [low.id, high.id] and house.jobs.get(low.id).lost_attempts == 0


def test_a_cancel_of_a_job_that_makes_room_is_a_cancel() -> None:
    house = one_at_a_time()
    low = house.create("low", LOW)
    house.queue.tick()
    house.create("high", HIGH)
    house.queue.tick()
    house.jobs.request_cancel(low.id)
    house.ray.submissions[f"{low.id}-1"] = SubmissionStatus.FAILED
    house.queue.tick()
    assert house.jobs.get(low.id).state is JobState.CANCELLED


def test_after_a_loss_a_job_waits_twice_as_long_each_time_and_elsewhere_goes_on() -> None:
    house = one_at_a_time()
    job, other = house.create("r"), house.create("other")
    house.queue.tick()
    lose(house, job, 1, "node-a")
    house.queue.tick()
    assert given(house) == [job.id, other.id], "what is free in the meantime is for others"
    finish(house, other)
    house.clock.advance(5)
    house.queue.tick()
    assert house.queue.standing.waits[job.id].reason is WaitReason.BACK_OFF
    house.clock.advance(5)
    house.queue.tick()
    assert given(house)[2:] == [job.id]
    lose(house, job, 2, "node-b")
    house.queue.tick()
    house.clock.advance(19)
    house.queue.tick()
    assert len(house.ray.orders) == 3
    house.clock.advance(1)
    house.queue.tick()
    assert house.ray.orders[3].attempt == 3
    assert avoided(house.jobs.get(job.id)) == ("node-b", "node-a")


@pytest.mark.parametrize(("wished", "allowed", "attempts"), [(0, 20, 1), (2, 20, 3), (5, 1, 2)])
def test_a_job_gets_as_many_new_attempts_as_it_wishes_and_the_operator_allows(
    wished: int, allowed: int, attempts: int
) -> None:
    """The configuration's `max_retries` and the service's limit differed by one attempt."""
    house = one_at_a_time(retry_backoff_seconds=0.0, max_retries=allowed)
    job = house.create("r", Wish(max_retries=wished))
    house.queue.tick()
    for number in range(1, 8):
        if house.jobs.get(job.id).ended:
            break
        lose(house, job, number)
        house.queue.tick()
    ended = house.jobs.get(job.id)
    assert len(house.ray.orders) == attempts == len(ended.history) == ended.lost_attempts
    assert ended.failure is not None and ended.failure.reason == "WORKER_LOST"
    assert {past.outcome for past in ended.history} == {Outcome.LOST}


def test_every_attempt_is_kept_with_its_times_and_why_it_ended() -> None:
    house = one_at_a_time(retry_backoff_seconds=0.0)
    job = house.create("r")
    house.queue.tick()
    house.clock.advance(60)
    lose(house, job, 1, "node-a")
    house.queue.tick()
    finish(house, job, 2)
    first, second = house.jobs.get(job.id).history
    assert (first.number, first.node_id, first.outcome, first.why) == (1, "node-a", Outcome.LOST, "the worker died")
    assert first.since < first.ended == second.since
    assert (second.number, second.outcome) == (2, Outcome.SUCCEEDED)


def test_who_used_much_of_late_waits_for_who_used_little_also_after_a_restart() -> None:
    house = one_at_a_time()
    before = house.create("before", Wish(team="much"))
    house.queue.tick()
    house.clock.advance(3600)
    finish(house, before)
    house.queue.tick()
    much, little = house.create("m", Wish(team="much")), house.create("l", Wish(team="little"))
    house.restart()
    house.queue.tick()
    assert given(house) == [before.id, little.id] and much.id in house.queue.standing.waits


def test_on_a_cluster_that_keeps_its_size_room_is_counted_node_by_node_and_made() -> None:
    """Four GPUs are free, on two nodes: nothing that needs three of one is given to Ray, where it would only wait."""
    house = House(limits=QueueLimits(Capacity(100), grows=False, rules=Rules(min_run_seconds=0)))
    house.ray.up = (Node("a", 8, 4), Node("b", 8, 4))
    small = [house.create(f"s{number}", replace(LOW, gpus=2)) for number in range(2)]
    house.queue.tick()
    for job, node in zip(small, "ab", strict=True):
        house.jobs.change(
            job.id, "on", lambda j, node=node: replace(j, attempt=replace(j.attempt, node_id=node)) if j.attempt else j
        )
    plain, urgent = house.create("plain", replace(LOW, gpus=3)), house.create("urgent", replace(HIGH, gpus=4))
    house.queue.tick()
    assert len(house.ray.orders) == 2
    waits = house.queue.standing.waits
    assert waits[urgent.id].reason is WaitReason.PREEMPTING and waits[plain.id].reason is WaitReason.CAPACITY
    assert [house.jobs.get(job.id).preempt_for for job in small].count(urgent.id) == 1
    house.ray.up = ()
    house.clock.advance(10)
    house.queue.tick()
    assert house.queue.standing.situation is not None
    assert house.queue.standing.situation.capacity.nodes, "a Ray that just starts anew has the nodes of before"


def test_a_replica_that_sees_another_one_dispatch_decides_anew_so_a_quota_holds() -> None:
    """In between two dispatches of one replica the other one fills the quota."""
    house = House(limits=QueueLimits(Capacity(100), Quotas(default=Quota(jobs=4))))
    first, second = house.replica(), house.replica()
    for number in range(20):
        house.create(f"r{number}")
    submit = house.ray.submit

    def interrupted(order: DriverOrder) -> None:
        submit(order)
        house.ray.submit = submit  # type: ignore[method-assign]  # once
        second.tick()

    house.ray.submit = interrupted  # type: ignore[method-assign]
    for _ in range(3):
        first.tick()
    assert len(house.ray.orders) == len(set(given(house))) == 4
