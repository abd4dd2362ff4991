"""What only a folder of files can get wrong."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from terroir.store.errors import AlreadyExists, InvalidKey, NotFound, StoreUnavailable
from terroir.store.local import LocalStore


def fail_with(number: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("call", "number", "reason"),
    [
        ("fsync", errno.ENOSPC, "STORE_DISK_FULL"),
        ("fsync", errno.EDQUOT, "STORE_DISK_FULL"),
        ("fsync", errno.EIO, "STORE_IO_ERROR"),
        ("link", errno.EROFS, "STORE_READ_ONLY"),
        ("link", errno.EPERM, "STORE_READ_ONLY"),
    ],
)
def test_a_failing_system_call_becomes_a_reason_with_the_key_and_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reason: str
) -> None:
    store = LocalStore(tmp_path)
    monkeypatch.setattr(os, call, fail_with(number))
    with pytest.raises(StoreUnavailable) as caught:
        store.create("x", b"body")
    monkeypatch.undo()
    assert caught.value.reason == reason
    assert caught.value.key == "x"
    assert os.strerror(number) in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not store.exists("x")
    assert not any((tmp_path / ".staging").iterdir()), "the failed body still takes up space"


def test_a_body_is_on_the_disk_before_its_name_and_the_name_before_create_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut can't be had in a test; the order of these calls is what survives one."""
    store = LocalStore(tmp_path)
    store.create("a/first", b"makes the folders")
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def recorded_fsync(descriptor: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync body")
        fsync(descriptor)

    def recorded_link(source: Path, target: Path) -> None:
        calls.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "link", recorded_link)
    store.create("a/second", b"x")
    assert calls == ["sync body", "link", "sync folder"]
    with pytest.raises(AlreadyExists):
        store.create("a/second", bytes(1 << 20))
    assert len(calls) == 3, "wrote a body that could not be kept"


def test_a_write_cut_short_by_the_system_leaves_nothing(tmp_path: Path) -> None:
    """A real partial write: the process may not make a file above 64 KiB."""
    store = LocalStore(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        with pytest.raises(StoreUnavailable) as caught:
            store.create("big", bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.reason == "STORE_IO_ERROR"
    assert not store.exists("big")
    assert not any((tmp_path / ".staging").iterdir())


def test_a_file_in_place_of_the_data_folder_is_named_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreUnavailable, match="choose a data folder") as caught:
            LocalStore(root)
        assert caught.value.reason == "STORE_NOT_A_FOLDER"


def test_opening_an_existing_folder_and_reading_it_write_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert not store.exists("x")
    assert not any(tmp_path.iterdir())


def test_ensure_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.ensure_writable()
    assert not any((tmp_path / ".staging").iterdir())
    assert list(store.list("")) == []


def test_files_that_are_no_objects_are_neither_listed_nor_readable(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("a/b", b"x")
    (tmp_path / ".staging" / "leftover").write_bytes(b"half")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"")
    assert list(store.list("")) == ["a/b"]
    assert list(store.list("a")) == ["a/b"]
    with pytest.raises(InvalidKey):
        store.get(".staging/leftover")


def test_staging_files_of_dead_writers_go_at_the_next_start_and_young_ones_stay(tmp_path: Path) -> None:
    LocalStore(tmp_path).create("x", b"x")
    old, young = tmp_path / ".staging" / "old", tmp_path / ".staging" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    LocalStore(tmp_path)
    assert not old.exists()
    assert young.exists()


def test_an_object_can_not_also_be_a_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("a/b", b"x")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(InvalidKey):
            store.create(key, b"y")
        with pytest.raises(NotFound):
            store.get(key)


def test_a_replaced_hint_is_never_seen_half(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("hint", b"old")
    inode = (tmp_path / "hint").stat().st_ino
    store.put("hint", b"new")
    assert store.get("hint") == b"new"
    assert (tmp_path / "hint").stat().st_ino != inode, "written in place: a reader could meet a mixture"
