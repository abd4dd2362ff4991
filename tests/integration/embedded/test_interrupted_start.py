"""Ctrl-C at the one moment at which Python would lose it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys
from pathlib import Path
from terroir.embedded import Embedded

fired = []

def interrupt():
    if not fired:
        fired.append(True)
        os.kill(os.getpid(), signal.SIGINT)

os.register_at_fork(after_in_parent=interrupt)
try:
    with Embedded(Path(sys.argv[1])):
        print("started")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_during_the_fork_of_a_service_is_not_lost(tmp_path: Path) -> None:
    """`terroir up` once went on as if Ctrl-C had never come: KeyboardInterrupt rose in a callback of `os.fork`."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "data")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "interrupted\n", done.stderr
    assert "Traceback" not in done.stderr
