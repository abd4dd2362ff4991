"""The disk tier when the disk is full, read-only, damaged, or was left in the middle of something."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from terroir.inference.adapters.disk_cache import DiskCache
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.tiers import Tier
from tests.unit.inference.tier_kit import TABLE, Tiers, small_file, version_name


def cache(folder: Path, budget_bytes: int = 1 << 20) -> DiskCache:
    """Opened."""
    disk = DiskCache(folder, budget_bytes, TierMetrics(CollectorRegistry()))
    disk.open()
    return disk


def put(disk: DiskCache, data: bytes) -> str:
    """Digest of what was kept."""
    digest = hashlib.sha256(data).hexdigest()
    disk.put(digest, data)
    return digest


async def load(tiers: Tiers, number: int = 1) -> None:
    """As a request does, and until the file is kept."""
    async with tiers.residency.hold(tiers.registry.versions[version_name(number)], TABLE):
        pass
    await tiers.loader.close()


def test_what_a_kill_left_half_written_is_removed_at_start(tmp_path: Path) -> None:
    digest = put(cache(tmp_path), b"whole")
    (tmp_path / "tmpabc.partial").write_bytes(b"half")
    disk = cache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{digest}.safetensors"]
    assert disk.get(digest) == b"whole" and disk.used_bytes == 5


def test_a_start_with_a_smaller_budget_drops_the_files_that_were_read_longest_ago(tmp_path: Path) -> None:
    disk = cache(tmp_path)
    digests = [put(disk, str(number).encode() * 10) for number in range(4)]
    for age, digest in enumerate(digests):
        os.utime(tmp_path / f"{digest}.safetensors", (age, age))
    disk = cache(tmp_path, budget_bytes=25)
    assert [disk.get(digest) is not None for digest in digests] == [False, False, True, True]
    assert disk.used_bytes == 20


def test_a_file_larger_than_the_budget_drops_nothing(tmp_path: Path) -> None:
    disk = cache(tmp_path, budget_bytes=25)
    kept = put(disk, b"0" * 10)
    put(disk, b"1" * 26)
    assert disk.get(kept) and disk.used_bytes == 10


def test_a_full_disk_is_a_warning_and_the_picture_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiers = Tiers(tmp_path / "disk")
    tiers.registry.publish(version_name(1), small_file(1))
    real = tempfile.NamedTemporaryFile

    def full(*args: Any, **kwargs: Any) -> Any:
        file = real(*args, **kwargs)

        def write(_data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        setattr(file, "write", write)  # noqa: B010  # it is not declared as something to replace
        return file

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with capture_logs() as logs:
        asyncio.run(load(tiers))
    assert tiers.resident() == [version_name(1)]
    assert [log["log_level"] for log in logs if "not kept on disk" in log["event"]] == ["warning"]
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_request_does_not_wait_for_the_disk_and_the_next_one_does_not_download_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers, slow, real = Tiers(tmp_path), threading.Event(), DiskCache.put
    tiers.registry.publish(version_name(1), small_file(1))
    version = tiers.registry.versions[version_name(1)]

    def put_late(disk: DiskCache, digest: str, data: bytes) -> None:
        slow.wait()
        real(disk, digest, data)

    monkeypatch.setattr(DiskCache, "put", put_late)

    async def both() -> Tier:
        first = await tiers.loader.load(version, TABLE)
        assert first.found is Tier.REGISTRY and tiers.disk.used_bytes == 0
        second = asyncio.create_task(tiers.loader.load(version, TABLE))
        await asyncio.sleep(0)
        slow.set()
        return (await second).found

    assert asyncio.run(both()) is Tier.DISK


def test_a_disk_that_takes_nothing_still_serves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions don't bind root, who runs tests in containers, so the calls themselves are refused."""
    tiers = Tiers(tmp_path)
    tiers.registry.publish(version_name(1), small_file(1))
    tiers.registry.publish(version_name(2), small_file(2))
    asyncio.run(load(tiers))
    tiers.evict(tiers.registry.versions[version_name(1)].file_digest)

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    asyncio.run(load(tiers, 1))
    asyncio.run(load(tiers, 2))
    assert tiers.registry.downloads == [version_name(1), version_name(2)]
    assert len(tiers.resident()) == 2


@pytest.mark.parametrize("damage", [b"", b"\x00" * 10, None])
def test_a_damaged_or_unreadable_file_is_fetched_again(tmp_path: Path, damage: bytes | None) -> None:
    tiers = Tiers(tmp_path)
    version = tiers.registry.publish(version_name(1), small_file(1))
    asyncio.run(load(tiers))
    tiers.evict(version.file_digest)
    path = tmp_path / f"{version.file_digest}.safetensors"
    path.unlink()
    if damage is None:
        path.mkdir()  # reading it fails with EISDIR
    else:
        path.write_bytes(damage)
    asyncio.run(load(tiers))
    assert len(tiers.registry.downloads) == 2
    assert tiers.resident() == [version_name(1)]
    assert tiers.counted("disk_damaged_total") == (0 if damage is None else 1)


def test_a_folder_that_cannot_be_listed_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    tiers = Tiers(tmp_path / "file" / "below")
    tiers.registry.publish(version_name(1), small_file(1))
    asyncio.run(load(tiers))
    assert tiers.resident() == [version_name(1)]


def test_a_file_that_somebody_removed_is_no_longer_counted(tmp_path: Path) -> None:
    disk = cache(tmp_path)
    digest = put(disk, b"gone")
    (tmp_path / f"{digest}.safetensors").unlink()
    assert disk.get(digest) is None and disk.used_bytes == 0
