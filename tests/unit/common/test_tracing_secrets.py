"""Settings hold secrets without showing them: not in errors, not in representations, not in what drivers are told."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from terroir.common.errors import InvalidArgument
from terroir.common.settings import ServiceSettings, describe
from terroir.dataset.settings import DatasetSettings
from terroir.inference.settings import InferenceSettings
from terroir.registry.settings import RegistrySettings
from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_head import _Running
from terroir.training.cluster.ray_jobs import RayEndpoint
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import Job
from terroir.training.main import driver_order
from terroir.training.settings import TrainingSettings

SECRET = "AKIA-lotus-not-to-be-seen"
SETTINGS = [DatasetSettings, TrainingSettings, RegistrySettings, InferenceSettings]
SOUNDS_SECRET = ("secret", "token", "password", "access_key")
NAMES_A_FILE = {"token_path"}


class VaultSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TERROIR_VAULT_", extra="forbid")

    key: Annotated[SecretStr, Field(min_length=100)] = Field(default=SecretStr("x" * 100), description="A key.")
    keys: dict[str, SecretStr] = Field(default={}, description="Keys.")
    maybe: SecretStr | None = Field(default=None, min_length=100, description="Perhaps a key.")
    address: str = Field(default="", description="An address.")


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> InvalidArgument:
    monkeypatch.setenv(f"TERROIR_VAULT_{name}", value)
    with pytest.raises(InvalidArgument) as refused:
        VaultSettings.load()
    cause: BaseException | None = refused.value
    while cause is not None:
        assert SECRET not in str(cause) + repr(cause), type(cause)
        cause = cause.__cause__ or cause.__context__
    return refused.value


@pytest.mark.parametrize("name", ["KEY", "MAYBE"])
def test_a_wrong_secret_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    refused = refusal(monkeypatch, name, SECRET)
    assert f"TERROIR_VAULT_{name} is wrong" in str(refused)
    assert "its value is a secret and not shown" in str(refused)


@pytest.mark.parametrize("value", [f'{{"a": ["{SECRET}"]}}', f'"{SECRET}"', f'{{"a": "{SECRET}"'])
def test_secrets_of_several_parts_are_not_shown_either(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert refusal(monkeypatch, "KEYS", value).reason == "INVALID_SETTING"


@pytest.mark.parametrize("name", ["ADDRESS", "STORE", "STORE_ENDPOINT", "OTLP_ENDPOINT"])
def test_an_address_that_holds_a_password_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    refused = refusal(monkeypatch, name, f"https://ana:{SECRET}@host:9000/x")
    assert refused.reason == "SECRET_IN_ADDRESS"
    assert f"TERROIR_VAULT_{name}" in str(refused)


def test_an_address_in_a_setting_of_another_type_is_shown_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "got 'https://…@host'" in str(refusal(monkeypatch, "PORT", f"https://ana:{SECRET}@host"))


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_that_sounds_secret_is_one(settings: type[ServiceSettings]) -> None:
    for row in describe(settings):
        if any(word in row.name for word in SOUNDS_SECRET) and row.name not in NAMES_A_FILE:
            assert "SecretStr" in row.type, row.name


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_representations_of_settings_show_no_secret(settings: type[ServiceSettings]) -> None:
    secret = {row.name: SecretStr(SECRET) for row in describe(settings) if "SecretStr" in row.type}
    assert "store_secret_access_key" in secret
    made = settings(**secret)  # type: ignore[arg-type]
    assert SECRET not in f"{made!r}{made}{made.model_dump()}{made.model_dump_json()}"


def test_what_is_kept_of_a_ray_shows_no_token() -> None:
    assert SECRET not in repr(RayEndpoint("http://h", SECRET, "s")) + repr(_Running(1, 1.0, "f", "u", SECRET, "s"))


def test_a_driver_is_told_no_secret_as_ray_shows_its_command_line() -> None:
    settings = TrainingSettings(
        store_access_key_id=SecretStr(SECRET), store_secret_access_key=SecretStr(SECRET),
        ray_auth_token=SecretStr(SECRET), otlp_endpoint="http://collector:4317",
    )  # fmt: skip
    order = driver_order(settings, job(traceparent="00-1-2-01"), Attempt(1, "job-1-1", "s"))
    assert SECRET not in order.to_json()
    assert DriverOrder.from_json(order.to_json()) == order


def test_orders_without_a_trace_are_those_of_drivers_that_know_none() -> None:
    """During an update the service may be newer than the image that Ray's nodes run."""
    told = json.loads(driver_order(TrainingSettings(), job(), Attempt(1, "job-1-1", "s")).to_json())
    later = {"otlp_endpoint", "traceparent", "avoid_nodes", "judge_model"}
    assert set(told) == {field.name for field in fields(DriverOrder)} - later
    assert DriverOrder.from_json(json.dumps(told)).traceparent == ""


def job(traceparent: str = "") -> Job:
    return Job("job-1", "ink", "tiny", "datasets/a/versions/1", "", "2026-01-01T00:00:00Z", traceparent=traceparent)
