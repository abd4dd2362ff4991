"""Rows of the keys that the judgement and the queue act on: each points to the test that shows its effect."""

from __future__ import annotations

from data_kit import config
from key_table import Ground, shown_by, shows

from terroir.training.scheduling.model import Demand
from terroir.training.scheduling.wishes import wish_of

_QUEUE = "unit/training/test_queue_policy.py"
_JUDGED = "unit/training/judging/test_judged_runs.py"

shown_by(
    "priority", f"{_QUEUE}::test_a_high_job_goes_before_those_that_came_first_and_the_others_are_told_why_they_wait"
)
shown_by("team", f"{_QUEUE}::test_a_team_gets_its_quota_and_no_more_however_much_is_free")
shown_by("preemptible", f"{_QUEUE}::test_a_job_that_is_not_to_be_pre_empted_runs_on")
shown_by("max_retries", f"{_QUEUE}::test_a_job_gets_as_many_new_attempts_as_it_wishes_and_the_operator_allows")

shown_by(
    "num_workers",
    "integration/training/test_worker_group.py::test_two_workers_follow_the_losses_of_one_with_twice_the_batch",
)


@shows("gpus")
def what_each_worker_asks_the_cluster_for(_: Ground) -> None:
    """Where a run gets a share of a GPU, it also gets that share of its memory: `make bench-gpu AREA=training`."""
    usual = Demand(cpus=1, gpus=1.0)
    asked = [wish_of(config(gpus=share)).demand(usual).gpus for share in (None, 0.5, 0)]
    assert asked == [1.0, 0.5, 0]


for _key in ("min_style_gain", "min_prompt_agreement", "min_diversity", "max_memorisation"):
    shown_by(_key, f"{_JUDGED}::test_a_bound_decides_what_passes")
for _key in ("judge_prompts", "judge_seeds", "judge_checkpoints"):
    shown_by(_key, f"{_JUDGED}::test_prompts_seeds_and_checkpoints_of_a_judgement_are_chosen")
shown_by("publish_gate", f"{_JUDGED}::test_warn_publishes_the_mildest_failure_with_its_verdict_and_off_judges_nothing")
shown_by("rating_gate", f"{_JUDGED}::test_a_rating_gate_keeps_pictures_for_raters_waits_and_then_follows_them")
for _key in ("sample_prompts", "sample_steps"):
    shown_by(_key, "unit/training/test_run_samples.py::test_samples_are_drawn_when_they_are_due_and_change_no_weight")
