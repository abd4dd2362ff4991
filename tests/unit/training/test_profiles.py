"""Presets: what they set is valid, explained, and overruled by a run's own keys."""

from __future__ import annotations

from itertools import product

import pytest

from terroir.training.config import TrainConfig
from terroir.training.config.docs import render
from terroir.training.config.layers import RIVALS
from terroir.training.config.parser import config_from_mapping, parse_config
from terroir.training.config.profiles import PROFILES

HARDWARE = [profile for profile in PROFILES.values() if profile.kind == "hardware"]
DATA = [profile for profile in PROFILES.values() if profile.kind == "data"]
GPUS = [profile for profile in HARDWARE if profile.name.startswith("gpu-")]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_every_value_of_a_profile_is_filled_in_and_has_a_reason(profile) -> None:
    config = parse_config(f"profile: {profile.name}").config
    assert config.profile == (profile.name,)
    for setting in profile.settings:
        assert getattr(config, setting.key) == setting.value
        assert len(setting.reason.split()) >= 3, setting
    assert len({setting.key for setting in profile.settings}) == len(profile.settings)
    assert profile.summary.endswith(".")


@pytest.mark.parametrize(("hardware", "data"), list(product(HARDWARE, DATA)), ids=lambda profile: profile.name)
def test_one_of_each_kind_go_together_in_any_order_and_leave_no_doubt(hardware, data) -> None:
    base = "terroir-tiny" if hardware.name == "cpu-smoke" else "sdxl" if hardware.name != "gpu-12gb" else "sd15"
    one = config_from_mapping({"profile": [hardware.name, data.name], "base_model": base})
    other = config_from_mapping({"profile": [data.name, hardware.name], "base_model": base})
    assert one.config.model_dump(exclude={"profile"}) == other.config.model_dump(exclude={"profile"})
    usual = () if hardware.name != "cpu-smoke" else ("lr_warmup_steps",)  # of twenty steps
    assert [warning for warning in one.warnings if not warning.startswith(("save_steps", *usual))] == []


def test_no_key_is_set_by_both_kinds() -> None:
    by_hardware = {key for profile in HARDWARE for key in profile.values}
    by_data = {key for profile in DATA for key in profile.values}
    assert by_hardware & by_data == set()
    assert (by_hardware | by_data) <= set(TrainConfig.model_fields)
    assert RIVALS == (("epochs", "max_train_steps"),)  # the smoke test's steps lie over any number of epochs


@pytest.mark.parametrize("profile", GPUS, ids=lambda profile: profile.name)
def test_a_step_has_four_pictures_on_every_gpu_so_that_rates_mean_the_same(profile) -> None:
    assert config_from_mapping({"profile": profile.name}).config.samples_per_step == 4


def test_larger_cards_recompute_and_split_less() -> None:
    passes = [config_from_mapping({"profile": profile.name}).config for profile in GPUS]
    assert [config.batch_size for config in passes] == sorted(config.batch_size for config in passes)
    assert passes[-1].gradient_checkpointing is False and passes[0].gradient_checkpointing is True


def test_own_keys_overrule_and_null_unsets() -> None:
    config = parse_config("profile: [gpu-24gb, noisy-set]\nresolution: 512\nema_decay: null\nmax_train_steps: 9").config
    assert (config.resolution, config.ema_decay, config.max_train_steps, config.epochs) == (512, None, 9, None)
    assert (config.batch_size, config.lora_alpha) == (2, 8)


def test_a_flag_s_profile_replaces_the_file_s() -> None:
    config = parse_config("profile: gpu-24gb\nlora_rank: 4", {"profile": ["cpu-smoke"]}).config
    assert (config.profile, config.resolution, config.lora_rank) == (("cpu-smoke",), 64, 4)


def test_the_reference_explains_every_profile() -> None:
    page = render()
    for profile in PROFILES.values():
        assert f"### `{profile.name}` (by {profile.kind})\n\n{profile.summary}" in page
        assert all(f"| {setting.reason} |" in page for setting in profile.settings)
