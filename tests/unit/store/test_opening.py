"""Which store settings mean, and what is refused before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from terroir.common.settings import ServiceSettings
from terroir.store.errors import StoreUnavailable
from terroir.store.opening import location_of, open_for_writing
from terroir.store.s3 import S3Location


def settings(**values: object) -> ServiceSettings:
    return ServiceSettings(**values)  # type: ignore[arg-type]


def test_without_a_store_the_data_folder_is_it(tmp_path: Path) -> None:
    assert location_of(settings(data_dir=tmp_path)) == tmp_path


def test_a_bucket_keeps_prefix_and_credentials(tmp_path: Path) -> None:
    found = location_of(
        settings(
            data_dir=tmp_path,
            store="s3://styles/team/a/",
            store_endpoint="http://127.0.0.1:9000/",
            store_access_key_id="key",
            store_secret_access_key="secret",
        )
    )
    assert found == S3Location(
        "styles", "team/a", "http://127.0.0.1:9000", access_key_id="key", secret_access_key="secret"
    )


def test_no_secret_is_ever_printed() -> None:
    location = S3Location("styles", access_key_id="the-key", secret_access_key="the-secret")
    declared = settings(store_secret_access_key="the-secret", store_access_key_id="the-key")
    for text in (repr(location), str(location), repr(declared), str(declared), declared.model_dump_json()):
        assert "the-secret" not in text
        assert "the-key" not in text


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"store": "styles"}, "STORE_URL_INVALID"),
        ({"store": "s3://"}, "STORE_URL_INVALID"),
        ({"store": "s3://Styles"}, "STORE_URL_INVALID"),
        ({"store": "s3://x"}, "STORE_URL_INVALID"),
        ({"store": "gs://styles"}, "STORE_URL_INVALID"),
        ({"store": "s3://styles/../other"}, "STORE_URL_INVALID"),
        ({"store": "s3://styles/a//b"}, "STORE_URL_INVALID"),
        ({"store": "s3://styles", "store_endpoint": "localhost:9000"}, "STORE_URL_INVALID"),
        ({"store": "s3://styles", "store_endpoint": "https://host/path"}, "STORE_URL_INVALID"),
        ({"store": "s3://styles", "store_endpoint": "http://minio.example:9000"}, "STORE_INSECURE_HTTP"),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused(values: dict[str, str], reason: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        location_of(settings(**values))
    assert caught.value.reason == reason
    assert "(" in str(caught.value), "the message has no next step"


def test_plain_http_beyond_this_machine_must_be_asked_for() -> None:
    asked = settings(store="s3://styles", store_endpoint="http://minio.example:9000", store_insecure_http=True)
    assert isinstance(location_of(asked), S3Location)


def test_a_service_that_nobody_answers_is_named_at_start() -> None:
    """Port 9 of loopback: nothing listens there, so the refusal is immediate."""
    nowhere = settings(
        store="s3://styles", store_endpoint="http://127.0.0.1:9", store_access_key_id="k", store_secret_access_key="s"
    )
    with pytest.raises(StoreUnavailable) as caught:
        open_for_writing(nowhere)
    assert caught.value.reason == "STORE_UNREACHABLE"
    assert "127.0.0.1:9" in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "setting", "region"),
    [
        ({}, "", "us-east-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "", "eu-west-1"),
        ({"AWS_REGION": "cn-north-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "", "cn-north-1"),
        ({"AWS_REGION": "cn-north-1"}, "ap-east-1", "ap-east-1"),
    ],
)
def test_the_region_is_the_setting_or_that_of_the_environment(
    environment: dict[str, str], setting: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = location_of(settings(store="s3://styles", store_region=setting))
    assert isinstance(found, S3Location)
    assert found.region == region
