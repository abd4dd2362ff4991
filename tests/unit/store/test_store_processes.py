"""Several processes on one folder, and processes that die."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import terroir
from terroir.common.clock import SystemClock
from terroir.store.documents import DocumentSequence
from terroir.store.local import LocalStore
from tests.unit.store.writer_process import FLOOD_BYTES

SCRIPT = Path(__file__).with_name("writer_process.py")
KILLS = 8


def start(mode: str, root: Path, name: str) -> subprocess.Popen[str]:
    services = Path(next(iter(terroir.__path__))).parent
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), mode, str(root), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(services)},
    )


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def race(mode: str, root: Path, processes: int) -> list[str]:
    started = [start(mode, root, f"p{index}") for index in range(processes)]
    for process in started:
        wait_until_ready(process)
    for process in started:
        release(process)
    outputs = [process.communicate(timeout=60)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0] * processes
    return outputs


def test_of_sixteen_creates_racing_in_four_processes_one_wins(tmp_path: Path) -> None:
    wins = race("create", tmp_path, 4)
    assert sum(map(int, wins)) == 1
    winner = LocalStore(tmp_path).get("race/one").decode()
    assert wins[int(winner[1])] == "1"


def test_four_processes_appending_lose_no_document_and_write_none_twice(tmp_path: Path) -> None:
    race("append", tmp_path, 4)
    documents = list(DocumentSequence(LocalStore(tmp_path), "log", SystemClock()).history())
    assert [document.number for document in documents] == list(range(1, 101))
    assert {document.op_id for document in documents} == {f"p{name}-{n}" for name in range(4) for n in range(25)}


def half_written(staging: Path) -> list[Path]:
    """Staged bodies that have begun to grow and are not whole."""
    found = []
    with suppress(FileNotFoundError):  # the folder is not made yet, or a body was finished while we looked
        for entry in staging.iterdir():
            if 0 < entry.stat().st_size < FLOOD_BYTES:
                found.append(entry)  # noqa: PERF401 - what was found before the exception counts
    return found


def test_a_killed_writer_leaves_no_partial_object_and_nothing_extra_in_a_listing(tmp_path: Path) -> None:
    cut_short = 0
    for attempt in range(KILLS):
        process = start("flood", tmp_path, f"k{attempt}")
        wait_until_ready(process)
        release(process)
        deadline = time.monotonic() + 20
        known = set(half_written(tmp_path / ".staging"))
        while set(half_written(tmp_path / ".staging")) <= known:
            assert time.monotonic() < deadline, "the writer never staged a body"
        process.kill()
        process.communicate()
        cut_short += len(set(half_written(tmp_path / ".staging")) - known)
    assert cut_short, f"none of {KILLS} kills met a half-written body, so this run proved nothing"
    store = LocalStore(tmp_path)
    for key in store.list(""):
        body = store.get(key)
        assert body == body[:1] * FLOOD_BYTES, f"{key} is partial"
    shutil.rmtree(tmp_path)  # pytest would keep hundreds of megabytes for three runs


def test_a_folder_without_the_right_to_write_is_reported_as_read_only() -> None:
    """In a process that gave up root, since root may write everywhere; pytest's own folders are closed to it."""
    root = Path(tempfile.mkdtemp())
    secret = root / "secret"
    try:
        secret.write_bytes(b"not for nobody")
        secret.chmod(0o000)
        root.chmod(0o555)
        output, _ = start("unprivileged", root, "-").communicate(timeout=30)
        assert output.split() == ["STORE_READ_ONLY", "STORE_PERMISSION_DENIED", "STORE_READ_ONLY"]
    finally:
        root.chmod(0o755)
        secret.unlink()
        root.rmdir()
