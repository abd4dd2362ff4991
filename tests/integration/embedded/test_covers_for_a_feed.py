"""The example for recommenders under `terroir up`, out of the box."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT, CommandLine, Up, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLE = ROOT / "examples" / "covers_for_a_feed.py"


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
