"""A built image, and all services in containers, as tests ask them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.images_build import IMAGES, built_from, project_version
from scripts.images_compose import Composition
from scripts.images_engine import Engine
from tests.command_line import TERROIR, environment

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class BuiltImage:
    """One image on this machine."""

    engine: Engine
    name: str
    tag: str

    def run(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """A command in a container as restricted as in production, without any network."""
        words = [
            self.engine.name, "run", "--rm", "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:mode=1777",
            "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none", *options, self.tag, *command,
        ]  # fmt: skip
        if self.engine.name == "docker":
            words.remove("--read-only-tmpfs=false")
        return subprocess.run(
            words, env=self.engine.all_environment(), capture_output=True, text=True, check=False, timeout=240
        )

    def python(self, program: str, *options: str) -> Any:
        """What a program in the image prints as JSON."""
        done = self.run("python", "-c", program, options=options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @classmethod
    def of(cls, engine: Engine, name: str) -> BuiltImage:
        """Of the version of this checkout."""
        return cls(engine, name, next(image for image in IMAGES if image.name == name).tag(project_version()))

    @property
    def revision(self) -> str:
        """The commit that its label names."""
        return built_from(self.engine, self.tag)

    def described(self) -> dict[str, Any]:
        """Its configuration."""
        return dict(json.loads(self.engine.run("image", "inspect", self.tag))[0])


@dataclass(frozen=True)
class Running:
    """All services in containers, asked from this machine."""

    engine: Engine
    composition: Composition
    endpoints: Mapping[str, str]

    def container(self, service: str) -> str:
        return self.composition.service(service).container

    def exec(self, service: str, *command: str) -> str:
        return self.engine.run("exec", self.container(service), *command)

    def described(self, service: str) -> dict[str, Any]:
        return dict(json.loads(self.engine.run("container", "inspect", self.container(service)))[0])

    def terroir(self, *arguments: str) -> Any:
        """What a command of the command line prints with --json."""
        stated = ",".join(f"{name}={target}" for name, target in self.endpoints.items())
        done = subprocess.run(
            [*TERROIR, "--json", *arguments], env=environment({"TERROIR_ENDPOINTS": stated}), capture_output=True,
            text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)
