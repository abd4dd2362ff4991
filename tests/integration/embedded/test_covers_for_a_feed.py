"""Covers under `terroir up`, out of the box: on a folder, and in a bucket that is all another machine has."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from terroir.store.s3 import S3Store
from tests.command_line import ROOT, CommandLine, Up, environment
from tests.tools.minio_server import ACCESS_KEY, SECRET_KEY, MinioServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLE = ROOT / "examples" / "covers_for_a_feed.py"
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


def feed(data_dir: Path, out: Path) -> list[list[str]]:
    """Run the example on the base's own look; a row for each post."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "", str(out)],
        env=environment({"TERROIR_DATA_DIR": str(data_dir)}), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_example_shows_a_page_of_covers_and_without_servers_the_feeds_own_picture(tmp_path: Path) -> None:
    terroir = CommandLine(tmp_path / "data")
    with Up(terroir.data_dir) as running:
        running.ready()
        rows = feed(terroir.data_dir, tmp_path / "out")
        assert [(content, rung) for content, rung, _ in rows] == [(f"post-{n}", "region") for n in (1, 2, 3)]
        assert all(Path(file).read_bytes()[:4] == b"RIFF" for _, _, file in rows)
        prepared = terroir.json("covers", "preparations")
        assert (prepared[0]["state"], prepared[0]["total"]) == ("PREPARATION_STATE_SUCCEEDED", "3")
        assert running.end(signal.SIGTERM)[0] == 0
    assert (terroir.data_dir / "covers" / "sets").is_dir()


def test_what_one_machine_prepared_another_one_with_the_bucket_shows(minio: MinioServer, tmp_path: Path) -> None:
    bucket = minio.location().bucket
    options = ("--free-ports", "--store", f"s3://{bucket}/feed", "--store-endpoint", minio.endpoint)
    first = CommandLine(tmp_path / "first")
    with Up(first.data_dir, KEYS, options) as running:
        running.ready()
        done = first.run(
            "covers", "prepare", str(ROOT / "examples" / "feed.tsv"), "--base", "--variants", "1", "--watch"
        )
        assert "3 drawn" in done.stdout
        assert running.end(signal.SIGTERM)[0] == 0
    assert not (first.data_dir / "covers").exists()
    keys = list(S3Store(minio.location(bucket)).list("feed/covers"))
    assert len([key for key in keys if "/pictures/" in key]) == 3

    second = CommandLine(tmp_path / "second")
    with Up(second.data_dir, KEYS, options) as running:
        running.ready()
        covers = second.json("covers", "get", "post-1", "post-2", "nobody", "--out", str(tmp_path / "out"))
        assert [cover["rung"] for cover in covers] == ["region", "region", "default"]
        assert f"feed/{covers[0]['object_key']}" in keys
        assert Path(covers[0]["file"]).read_bytes()[:4] == b"RIFF"
        assert running.end(signal.SIGTERM)[0] == 0
