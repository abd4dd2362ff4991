"""Build the images as they are published: from the committed tree, with labels, so that a second build is the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scripts.images_engine import Engine, ImagesError, cache

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE_DATE_EPOCH: Final = 315_532_800
"""1980, time of every file in the images unless the variable says another; see Dockerfile.inference."""
_STEP: Final = re.compile(r"STEP \d+/\d+: (RUN|COPY|FROM)|^#\d+ \[")
_WIDTH: Final = 110


@dataclass(frozen=True)
class Image:
    """One of ours."""

    name: str
    dockerfile: str
    about: str
    target: str = ""

    def tag(self, version: str) -> str:
        """Its full name."""
        return f"terroir-{self.name}:{version}"


IMAGES: Final = (
    Image("control", "Dockerfile.inference", "the registry, without torch", "control"),
    Image("inference", "Dockerfile.inference", "the inference service"),
    Image("trainer", "Dockerfile.trainer", "training and dataset service, Ray nodes"),
)


@dataclass(frozen=True)
class BuildOptions:
    """How to build."""

    version: str
    source: str = ""
    """Address of the repository, for the label."""
    worktree: bool = False
    """From the files as they lie here instead of the commit."""
    no_cache: bool = False
    passed: tuple[str, ...] = ()
    """Further options for `docker build` or `podman build`."""


def project_version() -> str:
    """Version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def build(engine: Engine, image: Image, options: BuildOptions, say: Callable[[str], None]) -> str:
    """Build one; returns its tag. Raises ImagesError with the end of the build's messages and the path of all."""
    tag = image.tag(options.version)
    began = time.monotonic()
    log = cache() / f"build-{image.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _context(options, say) as context:
        told = ["--file", str(context / image.dockerfile), *_options(engine, image, tag, options), *options.passed]
        command = [engine.name, "build", *told, str(context)]
        with log.open("w", encoding="utf-8") as kept:
            status = _stream(command, engine.all_environment() | _build_environment(), kept.write, say)
    if status:
        said = log.read_text(encoding="utf-8")
        last = "\n  ".join(said.strip().splitlines()[-15:])
        raise ImagesError(f"{tag} was not built; {_hint(said)} (all messages: {log}):\n  {last}")
    say(f"{tag} built in {time.monotonic() - began:.0f} s")
    return tag


def revision() -> str:
    """Commit of the checkout."""
    return _git("rev-parse", "HEAD")


def built_from(engine: Engine, image: str) -> str:
    """The commit that the label of an image names."""
    told = json.loads(engine.run("image", "inspect", image))[0]["Config"]["Labels"] or {}
    return str(told.get("org.opencontainers.image.revision", ""))


def layers(engine: Engine, image: str) -> tuple[str, ...]:
    """Digests of its layers' content, lowest first."""
    told = json.loads(engine.run("image", "inspect", image, "--format", "{{json .RootFS.Layers}}"))
    return tuple(told)


def _options(engine: Engine, image: Image, tag: str, options: BuildOptions) -> list[str]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", str(SOURCE_DATE_EPOCH))
    created = datetime.fromtimestamp(int(_git("show", "--no-patch", "--format=%ct", "HEAD")), UTC)
    dirty = options.worktree and bool(_git("status", "--porcelain"))
    arguments = {
        "CREATED": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "REVISION": f"{revision()}{'-dirty' if dirty else ''}",
        "SOURCE": options.source,
        "VERSION": options.version,
        "SOURCE_DATE_EPOCH": epoch,
    }
    told = ["--tag", tag]
    told += [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    told += [part for name, path in _secrets().items() for part in ("--secret", f"id={name},src={path}")]
    if image.target:
        told += ["--target", image.target]
    if engine.name == "podman":
        told += ["--timestamp", epoch, "--format", "oci", "--layers"]
    if options.no_cache:
        told.append("--no-cache")
    return told


def _secrets() -> dict[str, Path]:
    """What this machine's network needs; mounted while packages are installed and in no layer."""
    found: dict[str, Path] = {}
    certificates = next(filter(None, map(os.environ.get, ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"))), None)
    candidates = {
        "ca_bundle": (certificates,),
        "pip_conf": (os.environ.get("PIP_CONFIG_FILE"), "~/.config/pip/pip.conf", "/etc/pip.conf"),
        "uv_toml": (os.environ.get("UV_CONFIG_FILE"), "~/.config/uv/uv.toml", "/etc/uv/uv.toml"),
    }
    for name, paths in candidates.items():
        present = [path for path in (Path(text).expanduser() for text in paths if text) if path.is_file()]
        if present:
            found[name] = present[0]
    return found


@contextmanager
def _context(options: BuildOptions, say: Callable[[str], None]) -> Iterator[Path]:
    """The files to build from: those of the commit, so that the revision in the labels is the truth."""
    if options.worktree:
        yield ROOT
        return
    if changed := _git("status", "--porcelain", "--", "services", "requirements", "scripts", "Dockerfile*"):
        say(f"{len(changed.splitlines())} changed files are not in the images; commit them, or build with --worktree")
    with tempfile.TemporaryDirectory(prefix="terroir-context-") as folder:
        archive = Path(folder) / "context.tar"
        _git("archive", "--output", str(archive), "HEAD")
        with tarfile.open(archive) as packed:
            packed.extractall(Path(folder) / "context", filter="tar")
        archive.unlink()
        yield Path(folder) / "context"


def _stream(
    command: Sequence[str], environment: dict[str, str], keep: Callable[[str], object], say: Callable[[str], None]
) -> int:
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        for line in process.stdout or ():
            keep(line)
            if _STEP.search(line):
                say(f"  {line.strip()[:_WIDTH]}")
    return process.returncode


def _build_environment() -> dict[str, str]:
    return {"DOCKER_BUILDKIT": "1"}


def _hint(said: str) -> str:
    if re.search(r"(pinging container registry|initializing source|failed to resolve source|dial tcp)", said):
        return (
            "the base image could not be pulled: log in to its registry, or `python scripts/images.py base` makes one"
        )
    if "CERTIFICATE_VERIFY_FAILED" in said or "invalid peer certificate" in said:
        return "a certificate was not trusted: name your network's bundle in SSL_CERT_FILE"
    if "No space left" in said:
        return "the disk is full: an image with PyTorch's GPU build needs 10 GB while it is built"
    return "the step that failed is named below"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImagesError(f"git {' '.join(words[:2])} failed here: {done.stderr.strip()}; build from a clone")
    return done.stdout.strip()
