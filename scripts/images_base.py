"""Images that are made from this machine, where no container registry is at hand: the base, and the object store."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scripts.images_engine import Engine, ImagesError
from scripts.tools import TOOLS
from scripts.tools import build as build_tool

BASE_IMAGE: Final = "docker.io/library/python:3.11-slim"
MINIO_IMAGE: Final = "localhost/terroir-minio:local"
_SUITE: Final = "bookworm"
"""Debian with Python 3.11, as in the image that it stands in for."""
_PACKAGES: Final = ("ca-certificates", "python3.11", "python3.11-venv", "python3-pip", "tzdata")
_LEFT_OUT: Final = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/lib/apt/lists")
_LABEL: Final = "terroir.stands-in-for"


def make_base(engine: Engine) -> None:
    """Debian's own Python 3.11 under the name of the official image, which it stands in for; raises ImagesError."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise ImagesError(
            "making a base image needs root and Debian's debootstrap (apt-get install debootstrap); where a container "
            f"registry can be reached nothing needs to be made: {engine.name} pull {BASE_IMAGE}"
        )
    with _scratch() as root:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root), _mirror()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n  ".join(done.stdout.splitlines()[-5:])
            raise ImagesError(f"debootstrap failed; see that `apt-get update` works here:\n  {last}")
        for name in _LEFT_OUT:
            shutil.rmtree(root / name, ignore_errors=True)
        for archive in (root / "var/cache/apt").rglob("*.*"):
            archive.unlink()
        for name in ("python", "python3"):
            (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
        _import(engine, root, BASE_IMAGE, 'CMD ["python3"]', f"LABEL {_LABEL}={BASE_IMAGE}")


def make_minio(engine: Engine) -> None:
    """The object store's last release, which was published as source alone, on the base image."""
    program = build_tool(next(tool for tool in TOOLS if tool.name == "minio"))
    with _scratch() as folder:
        shutil.copy(program, folder / "minio")
        (folder / "Dockerfile").write_text(
            f"FROM {BASE_IMAGE}\nCOPY minio /usr/local/bin/minio\n"
            "RUN mkdir /data && chown 10001:10001 /data\nUSER 10001:10001\n"
            'ENTRYPOINT ["/usr/local/bin/minio"]\nCMD ["server", "/data"]\n'
        )
        engine.run("build", "--tag", MINIO_IMAGE, str(folder))


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="terroir-image-") as folder:
        Path(folder).chmod(0o755)  # it becomes the root folder of an image, which everybody must be able to enter
        yield Path(folder)


def _import(engine: Engine, root: Path, image: str, *changes: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "root.tar"
        subprocess.run(
            ["tar", "--sort=name", "--numeric-owner", "--one-file-system", "-C", str(root), "-cf", str(archive), "."],
            check=True,
        )
        options = [part for change in changes for part in ("--change", change)]
        engine.run("import", *options, str(archive), image)


def _mirror() -> str:
    """Where this machine's own packages come from."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(SUITE) $(CODENAME) $(LABEL)"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    found = re.search(rf"^(\S+) \S+ {_SUITE} Debian$", listed, re.MULTILINE)
    if found is None:
        raise ImagesError(f"apt knows no mirror of Debian {_SUITE} here; add one to its sources and run apt-get update")
    return found[1]
