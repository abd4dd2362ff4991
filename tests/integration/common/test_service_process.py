"""The frame of a service's main, as a process: signals at any moment, and failures to start as one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.command_line import environment

PROGRAM = """
import os, signal
from contextlib import asynccontextmanager
from terroir.common.service import run_service
from terroir.common.settings import ServiceSettings

@asynccontextmanager
async def build(settings, server):
    os.kill(os.getpid(), signal.{number})
    try:
        yield
    finally:
        print("closed")

run_service("probe", ServiceSettings, build)
"""


def run(number: str = "SIGTERM", **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(number=number)]
    return subprocess.run(
        command, env=environment(settings), capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_during_the_start_still_closes_what_was_opened(number):
    """The default action of SIGTERM ended a training service between the start of its Ray and its first answer."""
    done = run(number)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"TERROIR_PORT": "x"}, "INVALID_SETTING"),
        ({"TERROIR_HOST": "0.0.0.0"}, "INSECURE_LISTEN_REFUSED"),
        ({"TERROIR_ANNOUNCE_PATH": "/nowhere/probe.json"}, "ANNOUNCE_PATH_UNUSABLE"),
    ],
)
def test_a_failure_to_start_is_one_line_with_its_reason_and_status_1(settings, reason):
    done = run(**settings)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if not line.startswith("{")] == [done.stderr.splitlines()[-1]]
    assert done.stderr.splitlines()[-1].startswith(f"terroir probe: [{reason}] ")
