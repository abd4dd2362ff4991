"""A local training run in a process of its own, on a disk or with memory that is too small for it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any, Final

from terroir.common.errors import TerroirError
from terroir.store.errors import StoreError
from terroir.training.local.run import run_locally

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
"""CLONE_NEWNS and CLONE_NEWUSER of linux/sched.h."""
REFUSED: Final = "mounting is refused here"


def on_disks(config: Path, output: Path, options: list[str], answers: Path) -> None:
    """Run once for each of the mount options, such as `size=200k`, of a file system in the place of `output`.

    Nobody else sees the mount, which goes with the process.
    """
    output.mkdir(exist_ok=True)
    try:
        _own_mounts()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options[0], "tmpfs", str(output)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        answers.write_text(json.dumps([{"refused": f"{REFUSED}: {error}"}]))
        return
    told = [_told(config, output)]
    for changed in options[1:]:
        subprocess.run(["mount", "-o", f"remount,{changed}", str(output)], check=True)
        told.append(_told(config, output))
    answers.write_text(json.dumps(told))


def with_memory(config: Path, output: Path, more_bytes: int, answers: Path) -> None:
    """Run with so much more address space than the process has at its start."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    answers.write_text(json.dumps([_told(config, output)]))


def _told(config: Path, output: Path) -> dict[str, Any]:
    try:
        run_locally(config, threads=1)
    except (TerroirError, StoreError) as error:
        failure = {"reason": error.reason, "message": str(error)}
    else:
        failure = {}
    log = output / "train.log"
    return {
        **failure,
        "files": sorted(path.name for path in output.iterdir() if path.is_file()),
        "adapter": (output / "adapter.safetensors").read_bytes().hex() if not failure else "",
        "log": log.read_text() if log.is_file() else "",
    }


def _own_mounts() -> None:
    uid, gid = os.geteuid(), os.getegid()
    system = ctypes.CDLL(None, use_errno=True)
    if system.unshare(_NEW_MOUNTS | (_NEW_USER if uid else 0)):
        raise OSError(ctypes.get_errno(), "unshare")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
