"""What a side's process prints is taken, and why it failed is told."""

from __future__ import annotations

import sys

import pytest

from benchmarks.training.one_side import SideFailed, watched


def test_output_is_taken_and_the_environment_given() -> None:
    command = [sys.executable, "-c", "import os; print('heard', os.environ['ASKED'])"]
    assert watched(command, {"ASKED": "this"})[0] == "heard this\n"


def test_a_process_that_fails_tells_its_last_line() -> None:
    with pytest.raises(SideFailed, match=r"^RuntimeError: no such picture$"):
        watched([sys.executable, "-c", "raise RuntimeError('no such picture')"])


def test_a_process_that_hangs_is_ended_and_fails() -> None:
    with pytest.raises(SideFailed, match=r"did not end within 0\.1 s"):
        watched([sys.executable, "-c", "import threading; threading.Event().wait()"], timeout_seconds=0.1)
