"""The memory of a command is that of all its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from benchmarks.memory import PeakMemory, ProcessTree, pss_bytes

# Starts a detached process with its environment but for the mark, prints its identifier, and waits.
UNMARKED_CHILD = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={}, start_new_session=True)
print(child.pid, flush=True)
input()
"""
# Starts a detached process, tells its identifier and ends, so that nothing but the mark leads to it.
ORPHAN = """
import subprocess, sys
program = "import time; held = bytearray(64 << 20); print('held', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
"""


@pytest.fixture
def started():
    """Starts a program in a tree and gives back the process and the identifier that it prints."""
    processes, pids = [], []

    def start(tree, program):
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **tree.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        pids.append(int(process.stdout.readline()))
        return process, pids[-1]

    yield start
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in processes:
        process.kill()
        process.communicate()


def identifiers(tree):
    return {process.pid for process in tree.members()}


def test_a_child_that_lost_the_mark_is_known_by_its_parent(started):
    tree = ProcessTree()
    process, child = started(tree, UNMARKED_CHILD)
    assert identifiers(tree) == {process.pid, child}


def test_an_orphan_is_known_by_the_mark_and_its_memory_counts(started):
    tree = ProcessTree()
    process, orphan = started(tree, ORPHAN)
    process.wait(timeout=30)
    with PeakMemory(tree, interval_seconds=0.01) as memory:
        while not memory.peak_bytes:
            assert psutil.pid_exists(orphan)
    assert identifiers(tree) == {orphan}
    assert memory.peak_processes == 1
    assert memory.peak_bytes >= 64 << 20


def test_processes_of_others_do_not_count():
    assert identifiers(ProcessTree()) == set()


def test_an_ended_process_holds_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=30)
    assert pss_bytes(process.pid) == 0
