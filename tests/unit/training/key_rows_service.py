"""Rows of the keys that the judgement and the queue act on: each points to the test that shows its effect."""

from __future__ import annotations

from data_kit import config
from key_table import Ground, shown_by, shows

from terroir.training.scheduling.model import Demand
from terroir.training.scheduling.wishes import wish_of

_QUEUE = "unit/training/test_queue_policy.py"
_NOT_YET = (
    "unit/training/test_keys_in_force.py::test_a_key_whose_effect_would_be_missed_is_refused_by_name",
    "unit/training/test_keys_in_force.py::test_what_profiles_and_registrations_set_is_taken_with_a_warning",
)

shown_by(
    "priority", f"{_QUEUE}::test_a_high_job_goes_before_those_that_came_first_and_the_others_are_told_why_they_wait"
)
shown_by("team", f"{_QUEUE}::test_a_team_gets_its_quota_and_no_more_however_much_is_free")
shown_by("preemptible", f"{_QUEUE}::test_a_job_that_is_not_to_be_pre_empted_runs_on")
shown_by("max_retries", f"{_QUEUE}::test_a_job_gets_as_many_new_attempts_as_it_wishes_and_the_operator_allows")

shown_by(
    "num_workers",
    "integration/training/test_training_service.py"
    "::test_two_workers_joined_by_ray_train_follow_the_losses_of_one_with_twice_the_batch",
)


@shows("gpus")
def what_each_worker_asks_the_cluster_for(_: Ground) -> None:
    """Where a run gets a share of a GPU, it also gets that share of its memory: `make bench-gpu AREA=training`."""
    usual = Demand(cpus=1, gpus=1.0)
    asked = [wish_of(config(gpus=share)).demand(usual).gpus for share in (None, 0.5, 0)]
    assert asked == [1.0, 0.5, 0]


for _key in (
    "sample_steps", "sample_prompts", "judge_prompts", "judge_seeds", "min_style_gain", "min_prompt_agreement",
    "min_diversity", "max_memorisation", "rating_gate",
):  # fmt: skip
    shown_by(_key, _NOT_YET[0])
for _key in ("publish_gate", "judge_checkpoints"):
    shown_by(_key, _NOT_YET[1])
