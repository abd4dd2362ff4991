"""`terroir train profiles` explains what a run may start from."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from terroir.cli.main import app
from terroir.common.errors import InvalidArgument
from terroir.training.config.parser import parse_config
from terroir.training.config.profiles import PROFILES


def test_every_profile_is_listed_with_when_to_take_it() -> None:
    listed = json.loads(CliRunner().invoke(app, ["--json", "train", "profiles"]).stdout)
    assert {row["name"]: (row["kind"], row["summary"]) for row in listed} == {
        profile.name: (profile.kind, profile.summary) for profile in PROFILES.values()
    }
    table = CliRunner().invoke(app, ["train", "profiles"]).stdout
    assert all(name in table for name in PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_shown_as_yaml_that_means_the_same(name: str) -> None:
    text = CliRunner().invoke(app, ["train", "profiles", "--show", name]).stdout
    ours, profile = parse_config(text).config, parse_config(f"profile: {name}").config
    assert ours.model_dump(exclude={"profile"}) == profile.model_dump(exclude={"profile"})
    assert all(setting.reason in text for setting in PROFILES[name].settings)


def test_an_unknown_profile_is_answered_with_the_nearest() -> None:
    done = CliRunner().invoke(app, ["train", "profiles", "--show", "gpu-24"])
    assert isinstance(done.exception, InvalidArgument) and "gpu-24gb" in str(done.exception)
