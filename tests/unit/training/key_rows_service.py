"""Rows of the keys that the judgement and the queue act on: each points to the test that shows its effect."""

from __future__ import annotations

from key_table import shown_by

_NOT_YET = (
    "unit/training/test_keys_in_force.py::test_a_key_whose_effect_would_be_missed_is_refused_by_name",
    "unit/training/test_keys_in_force.py::test_what_profiles_and_registrations_set_is_taken_with_a_warning",
)

for _key in (
    "sample_steps", "sample_prompts", "judge_prompts", "judge_seeds", "min_style_gain", "min_prompt_agreement",
    "min_diversity", "max_memorisation", "rating_gate", "priority", "team", "num_workers", "preemptible", "max_retries",
):  # fmt: skip
    shown_by(_key, _NOT_YET[0])
for _key in ("publish_gate", "judge_checkpoints", "gpus"):
    shown_by(_key, _NOT_YET[1])
