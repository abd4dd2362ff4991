from __future__ import annotations

import os
import subprocess
import sys

import pytest

from terroir.common.native_log import NativeLog


def test_counts_failed_handshakes_and_passes_every_line_on(capfd: pytest.CaptureFixture[str]) -> None:
    failures = list[int]()
    log = NativeLog(lambda: failures.append(1))
    os.write(2, b"one line\nI1123 ssl.cc:1] Handshake failed with error SSL_ERROR_SSL: bad\nlast")
    log.close()
    os.write(2, b" word")
    assert failures == [1]
    assert capfd.readouterr().err == (
        "one line\nI1123 ssl.cc:1] Handshake failed with error SSL_ERROR_SSL: bad\nlast word"
    )


def test_a_child_that_outlives_us_keeps_nobody_waiting(capfd: pytest.CaptureFixture[str]) -> None:
    log = NativeLog(lambda: None)
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    log.close()
    os.write(2, b"still here\n")
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(10) == 0
    log.close()
    assert "still here" in capfd.readouterr().err
