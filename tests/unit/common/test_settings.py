"""A setting that is misspelt or wrong stops the start and is named by its variable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_settings import SettingsConfigDict

from terroir.common.errors import InvalidArgument
from terroir.common.settings import ServiceSettings, describe


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Limits:
    pictures: int = Field(5, ge=1)
    side: int = 64


class StudioSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TERROIR_STUDIO_", env_nested_delimiter="__", extra="forbid")

    limits: Limits = Field(Limits(), description="Limits.")
    sources: dict[str, Path] = Field(default={"tiny": Path("/base")}, description="Folders by name.")


@dataclass(frozen=True)
class Refusal:
    reason: str
    message: str


def refusal() -> Refusal:
    with pytest.raises(InvalidArgument) as refused:
        StudioSettings.load()
    return Refusal(refused.value.reason, str(refused.value))


def test_variables_override_defaults(monkeypatch):
    monkeypatch.setenv("TERROIR_STUDIO_PORT", "7199")
    monkeypatch.setenv("TERROIR_STUDIO_LIMITS__PICTURES", "9")
    monkeypatch.setenv("TERROIR_STUDIO_SOURCES", '{"big": "/models/big"}')
    settings = StudioSettings.load()
    assert (settings.port, settings.limits, settings.sources) == (7199, Limits(9, 64), {"big": Path("/models/big")})
    assert settings.host == "127.0.0.1"


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert StudioSettings.load().data_dir == Path("/home/somebody/.terroir")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("TERROIR_STUDIO_PROT", "TERROIR_STUDIO_PORT"),
        ("terroir_studio_prot", "TERROIR_STUDIO_PORT"),
        ("TERROIR_STUDIO_LIMITS__PICTURE", "TERROIR_STUDIO_LIMITS__PICTURES"),
        ("TERROIR_STUDIO_LIMITS__PICTURES__MANY", "TERROIR_STUDIO_LIMITS__PICTURES"),
        ("TERROIR_STUDIO_PORT__NUMBER", "TERROIR_STUDIO_PORT"),
    ],
)
def test_an_unknown_variable_names_the_nearest_known_one(monkeypatch, variable, nearest):
    monkeypatch.setenv(variable, "1")
    assert refusal() == Refusal("UNKNOWN_SETTING", f"unknown setting {variable} (did you mean {nearest}?)")


def test_variables_of_other_services_are_none_of_its_business(monkeypatch):
    monkeypatch.setenv("TERROIR_REGISTRY_WHATEVER", "1")
    monkeypatch.setenv("TERROIR_DATA_DIR", "/somewhere")
    assert StudioSettings.load().data_dir == Path("~/.terroir").expanduser()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TERROIR_STUDIO_PORT", "65536"),
        ("TERROIR_STUDIO_PORT", "many"),
        ("TERROIR_STUDIO_LOG_LEVEL", "loud"),
        ("TERROIR_STUDIO_DRAIN_TIMEOUT_SECONDS", "-1"),
        ("TERROIR_STUDIO_LIMITS__PICTURES", "0"),
    ],
)
def test_a_wrong_value_is_shown_with_its_variable(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    refused = refusal()
    assert refused.reason == "INVALID_SETTING"
    assert refused.message.startswith(f"setting {variable} is wrong: ")
    assert repr(value) in refused.message


@pytest.mark.parametrize("value", ["not json", '{"tiny": ', "[1"])
def test_a_value_that_should_be_json_is_refused_too(monkeypatch, value):
    """pydantic-settings raises an error of another kind there, which once ended the start with a traceback."""
    monkeypatch.setenv("TERROIR_STUDIO_SOURCES", value)
    refused = refusal()
    assert refused.reason == "INVALID_SETTING"
    assert "sources" in refused.message


def test_an_unknown_key_within_json_is_refused(monkeypatch):
    monkeypatch.setenv("TERROIR_STUDIO_LIMITS", '{"pictrues": 3}')
    assert refusal().reason == "INVALID_SETTING"


def test_every_setting_has_a_row_with_a_description():
    rows = {row.name: row for row in describe(StudioSettings)}
    assert set(rows) == set(StudioSettings.model_fields)
    assert all(row.description for row in rows.values())
    assert (rows["port"].variable, rows["port"].default) == ("TERROIR_STUDIO_PORT", "0")
