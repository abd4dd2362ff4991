"""A service that starts on a bucket: what it makes, what it refuses with one readable line, and how soon."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from minio import MinioAdmin
from minio.credentials import StaticProvider

from terroir.store.opening import open_store
from terroir.store.s3 import S3Location, S3Store
from tests.tools.careless_s3 import careless_s3
from tests.tools.minio_server import ACCESS_KEY, SECRET_KEY, MinioServer

START_SECONDS = 20.0
"""That a refusal may take on a busy machine, with the limits below."""
LIMITS = {"STORE_SILENCE_SECONDS": "1", "STORE_RETRY_SECONDS": "0.5"}

Start = Callable[[dict[str, str]], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the dataset service, the lightest that writes."""

    def begin(settings: dict[str, str]) -> subprocess.Popen[str]:
        own = {"DATA_DIR": str(tmp_path / "data"), "PORT": "0", "ANNOUNCE_PATH": str(tmp_path / "announce.json")}
        variables = {f"TERROIR_DATASET_{name}": value for name, value in (own | LIMITS | settings).items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("TERROIR_", "AWS_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "terroir.dataset.main"],
            env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def pointing_at(location: S3Location) -> dict[str, str]:
    return {
        "STORE": f"s3://{location.bucket}/{location.prefix}",
        "STORE_ENDPOINT": location.endpoint,
        "STORE_ACCESS_KEY_ID": location.access_key_id,
        "STORE_SECRET_ACCESS_KEY": location.secret_access_key,
    }


def refusal(process: subprocess.Popen[str]) -> str:
    """The one line that it ends with."""
    _, errors = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 1, errors
    lines = [line for line in errors.splitlines() if line.startswith("terroir dataset: [")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    assert SECRET_KEY not in errors
    return lines[0]


def test_it_makes_a_missing_bucket_and_leaves_nothing_of_its_probe(
    minio: MinioServer, start: Start, tmp_path: Path
) -> None:
    location = replace(minio.location(), bucket=f"fresh-{time.time_ns()}", prefix="team/a")
    process = start(pointing_at(location))
    announce = tmp_path / "announce.json"
    until = time.monotonic() + START_SECONDS
    while not announce.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)
    assert json.loads(announce.read_text())["pid"] == process.pid
    assert list(S3Store(location).list("")) == []
    process.terminate()
    process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0


def test_a_service_that_ignores_conditions_is_refused(start: Start) -> None:
    with careless_s3() as endpoint:
        line = refusal(
            start(pointing_at(S3Location("styles", endpoint=endpoint, access_key_id="k", secret_access_key=SECRET_KEY)))
        )
    assert "[STORE_NOT_CONDITIONAL]" in line
    assert "If-None-Match" in line


def test_a_bucket_that_it_may_not_make_is_asked_for(minio: MinioServer, start: Start) -> None:
    location = replace(minio.location(), bucket="never-made")
    line = refusal(start(pointing_at(location) | {"STORE_CREATE_BUCKET": "false"}))
    assert "[STORE_BUCKET_MISSING]" in line
    assert "never-made" in line


def test_a_wrong_secret_is_named_as_such(minio: MinioServer, start: Start) -> None:
    line = refusal(start(pointing_at(minio.location()) | {"STORE_SECRET_ACCESS_KEY": "wrong-secret"}))
    assert "[STORE_PERMISSION_DENIED]" in line
    assert "wrong-secret" not in line


def test_keys_that_may_only_read_serve_readers_and_are_refused_by_a_service_that_writes(
    minio: MinioServer, start: Start
) -> None:
    location = minio.location()
    S3Store(location).create("there", b"body")
    admin = MinioAdmin(endpoint=minio.address, credentials=StaticProvider(ACCESS_KEY, SECRET_KEY), secure=False)
    admin.user_add("reader", "secret-of-a-reader")
    admin.attach_policy(["readonly"], user="reader")
    reading = replace(location, access_key_id="reader", secret_access_key="secret-of-a-reader")
    assert open_store(reading).get("there") == b"body"
    line = refusal(start(pointing_at(reading)))
    assert "[STORE_PERMISSION_DENIED]" in line
    assert "policy" in line


@pytest.mark.parametrize("answers", [False, True], ids=["nobody listens", "accepts and stays silent"])
def test_a_service_that_cannot_be_reached_is_given_up_soon(start: Start, answers: bool) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        if answers:
            hole.listen(64)
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}"
        location = S3Location("styles", endpoint=endpoint, access_key_id="k", secret_access_key=SECRET_KEY)
        line = refusal(start(pointing_at(location)))
    assert "[STORE_UNREACHABLE]" in line
    assert endpoint in line
