"""What must hold of every decision, whatever the situation."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.training.scheduling.holdings import Holdings
from terroir.training.scheduling.model import (
    GPU_UNITS,
    LEVELS,
    Capacity,
    Decision,
    Node,
    Quotas,
    RunningJob,
    Situation,
    WaitingJob,
    WaitReason,
)
from terroir.training.scheduling.policy import decide
from tests.unit.training.scheduling.situations import (
    NOW,
    can_pack,
    demands,
    possible_situations,
    priorities,
    started,
    teams,
    units_by_team,
)

many = settings(max_examples=200, deadline=None)


@many
@given(possible_situations(elastic=False))
def test_what_runs_has_a_place_on_the_nodes(situation: Situation) -> None:
    """By an oracle that tries every choice. Decisions keep capacity whatever was decided before."""
    after = started(situation, decide(situation))
    assert situation.capacity.nodes is not None
    assert can_pack([job.demand for job in after.running], situation.capacity.nodes)
    assert len(after.running) <= max(situation.capacity.max_jobs, len(situation.running))


@many
@given(possible_situations())
def test_no_team_gets_more_than_its_quota(situation: Situation) -> None:
    decision = decide(situation)
    after = started(situation, decision)
    units, dispatched = units_by_team(after.running), set(decision.dispatch)
    for team in {job.team for job in situation.waiting if job.id in dispatched}:
        quota = situation.quotas.of(team)
        held = [job for job in after.running if job.team == team]
        assert quota.jobs is None or len(held) <= quota.jobs
        assert (
            quota.gpus is None
            or units[team] <= quota.gpus * GPU_UNITS
            or not any(job.demand.units for job in held if job.id in dispatched)
        )


@many
@given(possible_situations(elastic=True))
def test_an_elastic_cluster_is_filled_up_to_its_bound_and_no_further(situation: Situation) -> None:
    after, bound = started(situation, decide(situation)), situation.capacity.max_gpus
    held = units_by_team(after.running).total()
    assert bound is None or held <= max(bound * GPU_UNITS, units_by_team(situation.running).total())


@many
@given(possible_situations())
def test_every_waiting_job_is_dispatched_or_told_why_not(situation: Situation) -> None:
    decision = decide(situation)
    assert len(set(decision.dispatch)) == len(decision.dispatch)
    assert {*decision.dispatch} | decision.waits.keys() == {job.id for job in situation.waiting}
    assert not {*decision.dispatch} & decision.waits.keys()
    assert [wait.position for wait in decision.waits.values()] == list(range(1, len(decision.waits) + 1))
    assert all(wait.detail for wait in decision.waits.values())


@many
@given(possible_situations(), st.randoms(use_true_random=False))
def test_equal_situations_give_equal_decisions_in_whatever_order_they_are_told(
    situation: Situation, shuffler: random.Random
) -> None:
    waiting, running = list(situation.waiting), list(situation.running)
    shuffler.shuffle(waiting)
    shuffler.shuffle(running)
    assert decide(replace(situation, waiting=waiting, running=running)) == decide(situation)


@many
@given(possible_situations())
def test_a_high_job_is_never_behind_a_low_one_of_its_team(situation: Situation) -> None:
    decision, jobs = decide(situation), {job.id: job for job in situation.waiting}
    place = {job_id: index for index, job_id in enumerate([*decision.dispatch, *decision.waits])}
    for first, second in combinations([job for job in jobs.values() if job.not_before <= NOW], 2):
        high, low = sorted((first, second), key=lambda job: -LEVELS[job.priority])
        if first.team != second.team or high.priority == low.priority:
            continue
        both_wait = high.id in decision.waits and low.id in decision.waits
        assert not both_wait or place[high.id] < place[low.id]
        if high.demand.within(low.demand) and low.id in decision.dispatch:
            assert high.id in decision.dispatch and place[high.id] < place[low.id]


@many
@given(possible_situations())
def test_nothing_waits_that_could_run(situation: Situation) -> None:
    """Work conserving: a job without an obstacle waits only where room is kept for one that waited long.

    What starts lies where the decision put it: a guess made anew may find another packing, with room for the next.
    """
    decision = decide(situation)
    holdings, patience = Holdings(situation), situation.rules.reserve_after_seconds
    jobs = {job.id: job for job in situation.waiting}
    long = any(
        situation.now - jobs[job_id].waiting_since >= patience or wait.reason is WaitReason.PREEMPTING
        for job_id, wait in decision.waits.items()
        if wait.reason not in (WaitReason.BACK_OFF, WaitReason.UNSATISFIABLE)
    )
    if not long:  # else room is held that nobody has
        for job_id in decision.dispatch:
            holdings.take(jobs[job_id])
    for job_id, wait in decision.waits.items():
        if wait.reason is not WaitReason.BACK_OFF and not long:
            assert holdings.obstacles(jobs[job_id]), (job_id, wait)


@many
@given(possible_situations())
def test_only_willing_jobs_of_lower_classes_that_ran_long_enough_make_room(situation: Situation) -> None:
    running = {job.id: job for job in situation.running}
    waiting = {job.id: job for job in situation.waiting}
    decision = decide(situation)
    assert len({each.victim for each in decision.preempt}) == len(decision.preempt)
    for each in decision.preempt:
        victim, beneficiary = running[each.victim], waiting[each.beneficiary]
        assert victim.preemptible and not victim.stopping
        assert LEVELS[victim.priority] < LEVELS[beneficiary.priority]
        assert situation.now - victim.since >= situation.rules.min_run_seconds
        assert decision.waits[each.beneficiary].reason is WaitReason.PREEMPTING


@many
@given(possible_situations())
def test_no_more_jobs_make_room_than_must(situation: Situation) -> None:
    """With any one victim less, the job that it stops for could not run."""
    decision = decide(situation)
    running = {job.id: job for job in situation.running}
    beneficiaries = {each.beneficiary for each in decision.preempt}
    if len(beneficiaries) != 1 or any(job.stopping for job in situation.running):
        return
    (beneficiary,) = beneficiaries
    victims = [running[each.victim] for each in decision.preempt]
    if any(wait.reason is WaitReason.PREEMPTING for job, wait in decision.waits.items() if job != beneficiary):
        return
    job = next(job for job in situation.waiting if job.id == beneficiary)
    dispatched = [each for each in started(situation, decision).running if each.id in decision.dispatch]
    ranked_before = [each for each in dispatched if list(decision.dispatch).index(each.id) >= 0]
    base = replace(situation, waiting=[job], running=[*situation.running, *ranked_before])
    for spared in victims:
        gone = {victim.id for victim in victims} - {spared.id}
        fewer = replace(base, running=[each for each in base.running if each.id not in gone])
        assert Holdings(fewer).obstacles(job)


@many
@given(possible_situations())
def test_a_decision_that_was_carried_out_asks_for_nothing_more(situation: Situation) -> None:
    """Ticks come before jobs have stopped: no second victim is asked for the same room, nothing is started on it."""
    after = started(situation, decide(situation))
    again = decide(after)
    assert not again.preempt and not again.dispatch


class _Day:
    """Jobs arrive, run for a while and end; one decision at every change."""

    def __init__(self, jobs: list[tuple[WaitingJob, float]], capacity: Capacity, quotas: Quotas) -> None:
        self.jobs = {job.id: (job, length) for job, length in jobs}
        self.capacity, self.quotas = capacity, quotas
        self.started: dict[str, float] = {}

    def run(self) -> None:
        now, left = 0.0, {job_id: length for job_id, (_, length) in self.jobs.items()}
        waiting = {job_id: job for job_id, (job, _) in self.jobs.items()}
        running: dict[str, RunningJob] = {}
        for _ in range(10_000):
            due = [job for job in waiting.values() if job.created <= now]
            seen = Situation(now, due, list(running.values()), self.capacity, self.quotas)
            decision: Decision = decide(seen)
            for each in decision.preempt:  # at once: a simulated checkpoint takes no time
                victim = running.pop(each.victim)
                left[victim.id] -= now - victim.since
                job, _ = self.jobs[victim.id]
                waiting[victim.id] = replace(job, waiting_since=now)
            for job_id in decision.dispatch:
                job = waiting.pop(job_id)
                running[job_id] = RunningJob(job_id, job.team, job.priority, job.demand, now)
                self.started.setdefault(job_id, now)
            if decision.preempt:
                continue
            events = [job.since + left[job.id] for job in running.values()]
            events += [job.created for job in waiting.values() if job.created > now]
            events += [job.waiting_since + 900 for job in due if job.waiting_since + 900 > now]
            if not events:
                return
            now = min(events)
            for job_id in [job.id for job in running.values() if job.since + left[job.id] <= now]:
                del running[job_id]
        raise AssertionError("this day has no end")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5_000), st.integers(10, 2_000), teams, priorities, demands), min_size=1, max_size=12
    )
)
def test_no_job_starves(drawn: list[tuple[int, int, str, object, object]]) -> None:
    """Whatever comes, each job starts before all work, done one job after the other, would be done."""
    jobs = [
        (WaitingJob(f"j{index}", team, priority, demand, float(at), float(at)), float(length))  # type: ignore[arg-type]  # as drawn
        for index, (at, length, team, priority, demand) in enumerate(drawn)
    ]
    day = _Day(jobs, Capacity(100, (Node("n0", 8.0, 4), Node("n1", 8.0, 4), Node("n2", 8.0, 4))), Quotas())
    day.run()
    in_sequence = sum(length for _, length in jobs) + 900 * len(jobs)
    assert day.started.keys() == {job.id for job, _ in jobs}
    for job, _ in jobs:
        assert day.started[job.id] - job.created <= in_sequence
