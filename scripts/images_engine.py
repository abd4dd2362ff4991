"""What builds and runs containers here: Docker with a running daemon, or Podman."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

_PODMAN_LIMITS: Final = {"nofile": (resource.RLIMIT_NOFILE, 1_048_576), "nproc": (resource.RLIMIT_NPROC, 32_768)}
"""What Podman sets unless told otherwise; it fails where it may not raise its own so far."""
_LAST_LINES: Final = 15


class ImagesError(RuntimeError):
    """Says what could not be done and what to do next."""


def cache() -> Path:
    """Where this machine's own files lie, outside the tree."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "terroir" / "images"


@dataclass(frozen=True)
class Engine:
    """Docker or Podman, which understand the same commands for all that is done here."""

    name: Literal["docker", "podman"]
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> str:
        """Run a command; its standard output, which is not shown. Raises ImagesError with the end of its messages."""
        done = self._captured(*arguments)
        if done.returncode:
            raise ImagesError(_failure(self.name, arguments, done.stderr or done.stdout))
        return done.stdout

    def logs(self, container: str) -> str:
        """The last lines that a container wrote, to either of its outputs."""
        done = self._captured("logs", "--tail", str(_LAST_LINES), container)
        return done.stdout + done.stderr

    def show(self, *arguments: str) -> None:
        """Run a command whose messages are for the person that waits."""
        if subprocess.run([self.name, *arguments], env=self.all_environment(), check=False).returncode:
            raise ImagesError(_failure(self.name, arguments, "its messages are above"))

    def status(self, *arguments: str) -> int:
        """Exit status of a command of which nothing else matters."""
        return self._captured(*arguments).returncode

    def has(self, image: str) -> bool:
        """Whether the image is on this machine."""
        return self.status("image", "inspect", image) == 0

    def _captured(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.name, *arguments]
        return subprocess.run(command, env=self.all_environment(), capture_output=True, text=True, check=False)

    def all_environment(self) -> dict[str, str]:
        """What its processes get."""
        return {**os.environ, **self.environment}


def find_engine() -> Engine:
    """TERROIR_CONTAINER_ENGINE, else Docker if its daemon answers, else Podman; raises ImagesError."""
    asked = os.environ.get("TERROIR_CONTAINER_ENGINE", "")
    if asked not in ("", "docker", "podman"):
        raise ImagesError(f"TERROIR_CONTAINER_ENGINE is {asked!r}; docker and podman are known")
    docker = Engine("docker")
    if asked != "podman" and shutil.which("docker") and docker.status("version") == 0:
        return docker
    if asked != "docker" and shutil.which("podman"):
        return Engine("podman", _podman_environment())
    missing = "docker with a running daemon" if asked == "docker" else asked or "neither docker nor podman"
    raise ImagesError(
        f"{missing} was found; install Docker, or Podman (on Debian: apt-get install podman buildah netavark "
        "aardvark-dns catatonit)"
    )


def _podman_environment() -> dict[str, str]:
    """A configuration for machines without systemd and without the right to raise limits, such as build machines."""
    if "CONTAINERS_CONF" in os.environ or Path("/run/systemd/system").exists():
        return {}
    limits = []
    for name, (which, usual) in _PODMAN_LIMITS.items():
        hard = resource.getrlimit(which)[1]
        lowest = usual if hard == resource.RLIM_INFINITY else min(usual, hard)
        limits.append(f'"{name}={lowest}:{lowest}"')
    path = cache() / "containers.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n[containers]\n'
        f"default_ulimits = [{', '.join(limits)}]\n"
    )
    return {"CONTAINERS_CONF": str(path)}


def _failure(program: str, arguments: tuple[str, ...], said: str) -> str:
    last = "\n  ".join(said.strip().splitlines()[-_LAST_LINES:])
    return f"{program} {' '.join(arguments[:3])} … failed:\n  {last}"
