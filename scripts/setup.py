"""Make .venv ready: uv, PyTorch, everything locked, Terroir itself. Needs only Python's own library.

    python3 scripts/setup.py

A second call does nothing, unless the locks or this script changed. PyTorch has a lock of its own: where the machine
has no GPU, a CPU build of the locked version is taken if its index answers within seconds (about 200 MB instead of
5 GB); else the locked one is. TORCH_INDEX_URL names another index for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TORCH_LOCK = ROOT / "requirements" / "torch.txt"
LOCKS = (ROOT / "requirements" / "bootstrap.txt", TORCH_LOCK, ROOT / "requirements" / "all.txt")
STAMP = VENV / "terroir-setup"
PROBE_SECONDS = 15


def say(text: str) -> None:
    """Print a step at once."""
    print(f"setup: {text}", flush=True)


def run(*command: str) -> None:
    """Run a step; a failure ends the set-up with its own output above."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        sys.exit(f"setup: {' '.join(command[:4])} … failed with status {status}; its messages are above")


def uv(*arguments: str) -> tuple[str, ...]:
    """A uv command on our environment."""
    return (str(VENV / "bin" / "uv"), "pip", *arguments, "--python", str(PYTHON))


def cpu_torch(version: str) -> tuple[str, ...] | None:
    """The command that installs a CPU build, or None where none can be had within seconds or a GPU is present."""
    if url := os.environ.get("TORCH_INDEX_URL"):
        return uv("install", "--no-deps", f"torch=={version}", "--index-url", url)
    if sys.platform != "linux" or shutil.which("nvidia-smi"):
        return None
    command = uv("install", "--no-deps", f"torch=={version}", "--torch-backend", "cpu")
    try:
        probe = subprocess.run(
            (*command, "--dry-run"), cwd=ROOT, capture_output=True, timeout=PROBE_SECONDS, check=False,
            env={**os.environ, "UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    return command if probe.returncode == 0 else None


def compile_bytecode() -> None:
    """Compile all packages once, with every core.

    Where Python may not write bytecode by itself (PYTHONDONTWRITEBYTECODE is common on build machines) every process
    would compile diffusers and transformers anew: 11 s of imports instead of 4. Some packages carry files for other
    versions of Python; compileall fails on those, and that is no reason to stop.
    """
    packages = sysconfig.get_path("platlib", vars={"base": str(VENV), "platbase": str(VENV)})
    command = (str(PYTHON), "-m", "compileall", "-q", "-j", "0", packages)
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def main() -> None:
    """All steps."""
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        sys.exit(
            f"setup: Terroir needs Python 3.11 or 3.12, this is {sys.version.split()[0]}; "
            "run it as: make setup PYTHON=python3.11"
        )
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in (*LOCKS, Path(__file__)))).hexdigest()
    if STAMP.exists() and STAMP.read_text() == stamp:
        return
    if not PYTHON.exists():
        say(f"creating {VENV.name}")
        venv.create(VENV, with_pip=True)
    say("installing uv")
    run(str(PYTHON), "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(LOCKS[0]))
    version = re.search(r"^torch==(\S+)", TORCH_LOCK.read_text(), re.MULTILINE)
    if version is None:
        sys.exit(f"setup: {TORCH_LOCK} names no torch; restore it from git")
    say("looking for a CPU build of PyTorch")
    if command := cpu_torch(version[1]):
        say(f"installing PyTorch {version[1]} for CPUs")
        run(*command)
    else:
        say(f"installing PyTorch {version[1]} as locked; its GPU libraries take some minutes and 5 GB the first time")
        run(*uv("install", "--require-hashes", "--no-deps", "--requirement", str(TORCH_LOCK)))
    say("installing everything else as locked")
    run(*uv("install", "--require-hashes", "--no-deps", "--requirement", str(LOCKS[2])))
    run(*uv("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)))
    say("compiling bytecode")
    compile_bytecode()
    STAMP.write_text(stamp)
    say("ready")


if __name__ == "__main__":
    main()
