"""`terroir up --store`: styles and covers are made and used, and the bucket is all that has to be kept."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.store.s3 import S3Store
from terroir.tiny import BASE_DIR
from tests.command_line import ROOT, CommandLine, Up, base_settings, client_of, left_behind, submit
from tests.tools.minio_server import ACCESS_KEY, SECRET_KEY, MinioServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = base_settings(BASE_DIR) | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
KEPT = {"adapters", "blobs", "bases", "covers", "datasets", "jobs", "journal"}
OUTAGE_SECONDS = 12.0
"""Longer than the store's own repeats."""
CONFIG = """
dataset: datasets/ink
lora_rank: 4
batch_size: 4
max_train_steps: {steps}
save_steps: 2
"""


def kept_locally(data_dir: Path) -> set[str]:
    """Folders of the data folder that belong to the object store where it is local."""
    return {path.name for path in data_dir.iterdir()} & KEPT


def test_a_machine_that_has_the_bucket_alone_goes_on_with_what_another_made_through_an_outage(
    own_minio: MinioServer, tmp_path: Path
) -> None:
    bucket = own_minio.location().bucket
    options = ("--free-ports", "--store", f"s3://{bucket}/team/a", "--store-endpoint", own_minio.endpoint)

    first = CommandLine(tmp_path / "first")
    with Up(first.data_dir, SETTINGS, options) as running:
        running.ready()
        with client_of(first.data_dir) as client:
            name = submit(client, tmp_path / "pictures", CONFIG.format(steps=30))
            for job in client.training.watch(name):
                if job.progress.step >= 4:
                    break
            assert job.state == pb.JOB_STATE_RUNNING
        own_minio.kill()
        time.sleep(OUTAGE_SECONDS)
        own_minio.start()
        first.run("train", "watch", name)
        assert first.json("train", "show", name)["state"] == "JOB_STATE_SUCCEEDED"
        feed = str(ROOT / "examples" / "feed.tsv")
        assert "3 drawn" in first.run("covers", "prepare", feed, "--base", "--variants", "1", "--watch").stdout
        assert running.end(signal.SIGTERM)[0] == 0
    assert kept_locally(first.data_dir) == set()
    assert left_behind(first.data_dir) == []
    keys = list(S3Store(own_minio.location(bucket)).list(""))
    assert all(key.startswith("team/a/") for key in keys)
    assert {key.split("/")[2] for key in keys} >= KEPT
    assert not any(key.split("/")[2] == "probe" for key in keys)
    assert len([key for key in keys if "/covers/pictures/" in key]) == 3

    second = CommandLine(tmp_path / "second")
    with Up(second.data_dir, SETTINGS, options) as running:
        running.ready()
        assert [adapter["name"] for adapter in second.json("adapter", "list")] == ["adapters/ink"]
        drawn = second.json("generate", "a red teapot", "--adapter", "ink", "--steps", "2", "--out", str(tmp_path))
        assert Path(drawn["files"][0]).stat().st_size > 0
        covers = second.json("covers", "get", "post-1", "post-2", "nobody", "--out", str(tmp_path / "out"))
        assert [cover["rung"] for cover in covers] == ["region", "region", "default"]
        assert f"team/a/{covers[0]['object_key']}" in keys
        assert Path(covers[0]["file"]).read_bytes()[:4] == b"RIFF"
        assert running.end(signal.SIGTERM)[0] == 0
    assert kept_locally(second.data_dir) == set()


def test_a_bucket_that_cannot_be_reached_is_named_in_one_line(tmp_path: Path) -> None:
    """Port 9 of loopback: nobody listens there."""
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "never-shown"}
    options = ("--free-ports", "--store", "s3://styles", "--store-endpoint", "http://127.0.0.1:9")
    running = Up(tmp_path / "data", keys, options).begin()
    out, errors = running.process.communicate(timeout=60)
    assert running.process.returncode == 1
    assert "STORE_UNREACHABLE" in out
    assert "http://127.0.0.1:9" in out
    assert "never-shown" not in out + errors
    assert left_behind(tmp_path / "data") == []
