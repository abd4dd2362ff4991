"""The scheduling policy case by case: order, shares, gangs, backfill, pre-emption, quotas, elastic clusters."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from terroir.training.scheduling.fairness import UsageLedger
from terroir.training.scheduling.model import (
    Capacity,
    Decision,
    Demand,
    Preemption,
    Quota,
    Situation,
    Usage,
    WaitReason,
)
from terroir.training.scheduling.policy import decide
from tests.unit.training.scheduling.situations import (
    HIGH,
    LOW,
    NORMAL,
    NOW,
    gpus,
    machines,
    runs,
    situation,
    started,
    waits,
)


def reason(decision: Decision, job_id: str) -> WaitReason:
    return decision.waits[job_id].reason


def preempted(decision: Decision) -> set[str]:
    return {each.victim for each in decision.preempt}


def test_classes_go_first_then_who_came_first() -> None:
    jobs = [waits("young", waited=1), waits("old", waited=9), waits("low", priority=LOW, waited=99)]
    jobs.append(waits("high", priority=HIGH))
    assert decide(situation(jobs)).dispatch == ("high", "old", "young", "low")


def test_teams_take_turns_when_there_is_not_enough_for_all() -> None:
    jobs = [waits(f"{team}{number}", team=team, waited=9 - number) for team in "ab" for number in range(8)]
    dispatched = decide(situation(jobs)).dispatch
    assert len(dispatched) == 8
    assert sum(job.startswith("a") for job in dispatched) == 4


def test_a_team_with_three_times_the_weight_gets_three_times_as_much() -> None:
    jobs = [waits(f"{team}{number}", team=team) for team in "ab" for number in range(8)]
    dispatched = decide(situation(jobs, teams={"a": Quota(weight=3)})).dispatch
    assert sum(job.startswith("a") for job in dispatched) == 6


def test_who_held_much_of_late_waits_for_who_held_little() -> None:
    jobs = [waits("much", team="a", waited=100), waits("little", team="b")]
    decision = decide(situation(jobs, capacity=machines(1), usage={"a": Usage(gpus=4.0)}))
    assert decision.dispatch == ("little",)


def test_the_dominant_resource_counts() -> None:
    """By cores team a holds half of all, by GPUs team b holds a quarter."""
    running = [
        runs("cores", Demand(1, 32, 0), team="a"),
        runs("gpus", Demand(1, 1, 2), team="b"),
    ]
    jobs = [waits("a1", team="a", waited=5), waits("b1", team="b")]
    assert decide(situation(jobs, running, machines(8, max_jobs=3))).dispatch == ("b1",)


def test_use_is_forgotten_with_its_half_life() -> None:
    ledger = UsageLedger(half_life_seconds=100)
    ledger.add("a", gpus(4), 0, 100_000)
    assert ledger.usage(100_000)["a"].gpus == pytest.approx(4)
    assert ledger.usage(100_100)["a"].gpus == pytest.approx(2)
    assert ledger.usage(100_300)["a"].gpus == pytest.approx(0.5)


def test_use_is_the_same_in_whatever_order_it_is_heard_and_while_it_goes_on() -> None:
    spans = [("a", gpus(1), 0.0, 50.0), ("a", gpus(2), 20.0, 300.0), ("a", gpus(8), 10.0, 11.0)]
    one, other = UsageLedger(100), UsageLedger(100)
    for span in spans:
        one.add(*span)
    for span in reversed(spans):
        other.add(*span)
    assert one.usage(400)["a"].gpus == pytest.approx(other.usage(400)["a"].gpus)
    begun, ended = UsageLedger(100), UsageLedger(100)
    ended.add("a", gpus(1), NOW - 60, NOW)
    assert begun.usage(NOW, [runs("r", ran=60)]) == pytest.approx(ended.usage(NOW), abs=1e-9) or (
        begun.usage(NOW, [runs("r", ran=60)])["a"].gpus == pytest.approx(ended.usage(NOW)["a"].gpus)
    )


def test_a_share_of_a_gpu_is_a_share_of_one() -> None:
    """Two GPUs have 0.6 left together, and no job of 0.5 fits."""
    running = [runs("r0", gpus(0.7), node="n0"), runs("r1", gpus(0.7), node="n0")]
    decision = decide(situation([waits("half", gpus(0.5)), waits("third", gpus(0.3))], running, machines(2)))
    assert decision.dispatch == ("third",) and reason(decision, "half") is WaitReason.CAPACITY


def test_shares_are_put_together_so_that_whole_gpus_stay_whole() -> None:
    jobs = [waits(f"half{number}", gpus(0.5), waited=9) for number in range(4)] + [waits("six", gpus(6))]
    assert len(decide(situation(jobs)).dispatch) == 5


def test_a_gang_gets_all_of_its_workers_or_none() -> None:
    gang = waits("gang", gpus(4, workers=3))
    decision = decide(situation([gang], [runs("r", gpus(1), node="n0")], machines(8, 4)))
    assert decision.dispatch == () and reason(decision, "gang") is WaitReason.CAPACITY
    assert decide(situation([gang], [], machines(8, 4))).dispatch == ("gang",)


def test_a_worker_never_reaches_over_two_nodes() -> None:
    decision = decide(situation([waits("eight", gpus(8))], capacity=machines(4, 4)))
    assert reason(decision, "eight") is WaitReason.UNSATISFIABLE
    assert "more than the whole cluster" in decision.waits["eight"].detail


def test_cores_are_counted_too() -> None:
    jobs = [waits("many", Demand(1, 60, 1)), waits("more", Demand(1, 60, 1))]
    assert len(decide(situation(jobs)).dispatch) == 1


def test_small_jobs_pass_a_big_one_until_it_has_waited_long() -> None:
    running = [runs("r", gpus(4), node="n0", preemptible=False)]
    young = situation([waits("big", gpus(8), waited=60), waits("small", waited=1)], running)
    assert decide(young).dispatch == ("small",)
    old = situation([waits("big", gpus(8), waited=1000), waits("small", waited=1)], running)
    decision = decide(old)
    assert decision.dispatch == ()
    assert reason(decision, "small") is WaitReason.RESERVED and "jobs/big" in decision.waits["small"].detail


def test_room_is_kept_on_one_node_only_and_others_go_on() -> None:
    running = [runs("r0", gpus(4), node="n0"), runs("r1", gpus(6), node="n1")]
    jobs = [waits("big", gpus(8), waited=1000), waits("s1", waited=2), waits("s2", waited=1), waits("s3")]
    assert decide(situation(jobs, running, machines(8, 8))).dispatch == ("s1", "s2")


def test_room_is_kept_for_one_job_at_a_time_whatever_its_team() -> None:
    """With one a team, large jobs of three teams emptied a whole small cluster for hours."""
    running = [runs(f"r{number}", gpus(4), team="d", node=f"n{number}") for number in range(2)]
    big = [waits(f"big-{team}", gpus(8), team=team, waited=1000 - ord(team)) for team in "ab"]
    jobs = [*big, *(waits(f"small-{number}", gpus(4), team="c") for number in range(2))]
    decision = decide(situation(jobs, running, machines(8, 8)))
    assert decision.dispatch == ("small-0",)
    assert decision.waits["small-1"].reason is WaitReason.RESERVED
    assert "jobs/big-a" in decision.waits["small-1"].detail


def test_a_job_for_which_part_of_the_quota_is_kept_gets_it() -> None:
    jobs = [waits("big", gpus(4), waited=1000), waits("small"), waits("other", team="b")]
    running = [runs("r", gpus(2), node="n0")]
    decision = decide(situation(jobs, running, teams={"a": Quota(gpus=4)}))
    assert decision.dispatch == ("other",)
    assert (reason(decision, "big"), reason(decision, "small")) == (WaitReason.QUOTA, WaitReason.RESERVED)


def test_waiting_raises_a_job_among_teams_but_never_over_a_higher_class_of_its_own_team() -> None:
    jobs = [waits("low", team="a", priority=LOW, waited=5 * 3600), waits("normal", team="b", waited=10)]
    usage = {"b": Usage(gpus=1.0)}
    assert decide(situation(jobs, capacity=machines(1), usage=usage)).dispatch == ("low",)
    own = [waits("low", priority=LOW, waited=50 * 3600), waits("normal", waited=10)]
    assert decide(situation(own, capacity=machines(1))).dispatch == ("normal",)


def test_a_job_in_back_off_waits_for_its_time() -> None:
    job = replace(waits("again"), not_before=NOW + 30)
    decision = decide(situation([job]))
    assert reason(decision, "again") is WaitReason.BACK_OFF and "30 s" in decision.waits["again"].detail
    assert decide(replace(situation([job]), now=NOW + 30)).dispatch == ("again",)


def test_a_high_job_has_the_youngest_low_ones_make_room() -> None:
    running = [runs(f"low{age}", gpus(4), priority=LOW, node="n0", ran=age) for age in (5000, 4000)]
    decision = decide(situation([waits("high", gpus(3), priority=HIGH)], running))
    assert decision.preempt == (Preemption("low4000", "high"),)
    assert "jobs/low4000" in decision.waits["high"].detail


def test_one_node_is_cleared_rather_than_a_piece_of_each() -> None:
    running = [runs(f"{node}{number}", priority=LOW, node=node, ran=5000 - number)
               for node in ("n0", "n1") for number in range(4)]  # fmt: skip
    decision = decide(situation([waits("high", gpus(4), priority=HIGH)], running, machines(4, 4)))
    assert len({victim[:2] for victim in preempted(decision)}) == 1 and len(decision.preempt) == 4


def test_a_node_where_only_low_jobs_run_is_cleared_before_one_with_normal_jobs() -> None:
    running = [runs("normal", gpus(4), node="n0"), *(runs(f"low{n}", gpus(2), priority=LOW, node="n1") for n in "ab")]
    decision = decide(situation([waits("high", gpus(4), priority=HIGH)], running, machines(4, 4)))
    assert preempted(decision) == {"lowa", "lowb"}


def test_what_frees_too_little_alone_is_spared_if_another_frees_enough() -> None:
    running = [runs("one", gpus(1), priority=LOW, node="n0", ran=1000), runs("seven", gpus(7), priority=LOW, node="n0")]
    decision = decide(situation([waits("high", gpus(7), priority=HIGH)], running))
    assert preempted(decision) == {"seven"}


@pytest.mark.parametrize(
    "spared",
    [
        runs("r", gpus(8), priority=LOW, preemptible=False),
        runs("r", gpus(8), priority=LOW, ran=10),
        runs("r", gpus(8), priority=HIGH),
    ],
    ids=["not pre-emptible", "only just begun", "of the same class"],
)
def test_some_jobs_are_left_alone(spared: object) -> None:
    decision = decide(situation([waits("high", priority=HIGH)], [spared]))  # type: ignore[list-item]  # as parametrized
    assert not decision.preempt and reason(decision, "high") is WaitReason.CAPACITY


def test_nobody_stops_for_a_job_that_would_not_fit_all_the_same() -> None:
    running = [runs("fixed", gpus(4), node="n0", preemptible=False), runs("low", gpus(4), priority=LOW, node="n0")]
    assert not decide(situation([waits("high", gpus(8), priority=HIGH)], running)).preempt


def test_while_a_victim_saves_its_state_its_room_is_for_whom_it_stops() -> None:
    before = situation([waits("high", gpus(8), priority=HIGH)], [runs("low", gpus(8), priority=LOW, node="n0")])
    after = started(before, decide(before))
    later = replace(after, waiting=[*after.waiting, waits("small", team="b", priority=HIGH)])
    decision = decide(later)
    assert not decision.preempt and not decision.dispatch
    assert reason(decision, "high") is WaitReason.PREEMPTING


def test_a_job_that_room_was_made_for_goes_first_when_it_is_free() -> None:
    """Else a job of a team with a smaller share took it, and one more had to stop for the same job."""
    promised = replace(waits("promised", gpus(8), team="a", priority=NORMAL), promised=True)
    rival = waits("rival", gpus(8), team="b", priority=HIGH)
    assert decide(situation([promised, rival])).dispatch == ("promised",)


def test_a_team_s_own_low_job_makes_room_within_its_quota_and_nobody_else_s() -> None:
    running = [
        runs("own", gpus(4), priority=LOW, node="n0"),
        runs("others", gpus(2), team="b", priority=LOW, node="n0"),
    ]
    decision = decide(situation([waits("high", gpus(2), priority=HIGH)], running, teams={"a": Quota(gpus=4)}))
    assert preempted(decision) == {"own"}


def test_a_quota_of_jobs_and_one_of_gpus() -> None:
    jobs = [waits(f"a{number}", gpus(0.5), waited=9 - number) for number in range(3)]
    by_jobs = decide(situation(jobs, teams={"a": Quota(jobs=2)}))
    assert by_jobs.dispatch == ("a0", "a1") and "2 of its 2 jobs" in by_jobs.waits["a2"].detail
    by_gpus = decide(situation(jobs, teams={"a": Quota(gpus=1)}))
    assert by_gpus.dispatch == ("a0", "a1")
    assert by_gpus.waits["a2"].detail == "team a holds 1 of its 1 GPUs, this job needs 0.5"


def test_what_exceeds_a_quota_for_good_says_so() -> None:
    decision = decide(situation([waits("big", gpus(8))], teams={"a": Quota(gpus=4)}))
    assert reason(decision, "big") is WaitReason.UNSATISFIABLE and "4 GPUs" in decision.waits["big"].detail


def test_an_elastic_cluster_is_asked_for_everything_up_to_the_quotas() -> None:
    jobs = [waits(f"{team}{number}", gpus(8), team=team) for team in "ab" for number in range(5)]
    quotas = {"a": Quota(gpus=16), "b": Quota(gpus=24)}
    decision = decide(situation(jobs, capacity=Capacity(100), teams=quotas))
    assert sorted(decision.dispatch) == ["a0", "a1", "b0", "b1", "b2"]


def test_an_elastic_cluster_with_a_bound_has_low_jobs_make_room_there() -> None:
    running = [runs("low", gpus(8), priority=LOW)]
    decision = decide(situation([waits("high", gpus(8), priority=HIGH)], running, Capacity(100, None, 8)))
    assert preempted(decision) == {"low"}
    assert decide(situation([waits("high", gpus(8), priority=HIGH)], running, Capacity(100))).dispatch == ("high",)


def test_a_limit_of_jobs_holds_whatever_is_free() -> None:
    decision = decide(situation([waits("a", waited=2), waits("b", waited=1)], capacity=machines(8, max_jobs=1)))
    assert decision.dispatch == ("a",) and reason(decision, "b") is WaitReason.JOB_LIMIT


def test_without_gpus_cores_decide() -> None:
    jobs = [waits(f"j{number}", Demand(1, 30, 0)) for number in range(3)]
    assert len(decide(situation(jobs, capacity=machines(0))).dispatch) == 2


def a_thousand() -> Situation:
    """Teams and classes mixed, on 64 GPUs that are all in use."""
    shapes = [gpus(0.5), gpus(1), gpus(2), gpus(4, workers=2), gpus(8)]
    jobs = [
        waits(f"j{n}", shapes[n % 5], team=f"t{n % 7}", priority=(LOW, NORMAL, HIGH)[n % 3], waited=n * 7 % 5000)
        for n in range(1000)
    ]
    running = [runs(f"r{n}", team=f"t{n % 3}", node=f"n{n // 8}", preemptible=n % 2 == 0) for n in range(64)]
    return situation(jobs, running, machines(*[8] * 8))


def test_a_thousand_waiting_jobs_are_decided_on_in_hundredths_of_a_second() -> None:
    """`make bench AREA=scheduling` holds it against 10 ms; here a busy machine may take five times as long."""
    crowded = a_thousand()
    crowded = started(crowded, decide(crowded))  # pre-emption, once decided, is not decided again
    best = float("inf")
    for _ in range(7):
        begun = time.process_time()
        decision = decide(crowded)
        best = min(best, time.process_time() - begun)
    assert len(decision.waits) == 1000 and best < 0.05


def test_the_words_do_not_depend_on_the_order_in_which_running_jobs_are_told() -> None:
    """Two jobs that stopped for one were named in the order of the situation: replicas gave different reasons."""
    running = [runs(name, gpus(4), priority=LOW, stopping=True) for name in ("one", "two")]
    urgent = waits("urgent", gpus(8), priority=HIGH)
    told = decide(situation([urgent], running)).waits["urgent"].detail
    assert decide(situation([urgent], running[::-1])).waits["urgent"].detail == told
    assert told.startswith("jobs/one, jobs/two save their state")
