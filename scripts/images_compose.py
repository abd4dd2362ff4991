"""The services of compose.yaml: by `docker compose`, or by Podman from the same file where there is no compose."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from scripts.images_base import MINIO_IMAGE
from scripts.images_engine import Engine, ImagesError

SERVICES: Final = ("dataset", "training", "registry", "inference")
_FILE: Final = "compose.yaml"
_SECRETS: Final = Path("deploy/compose/secrets")
_READY_SECONDS: Final = 180.0
_LOOK_SECONDS: Final = 0.5
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_MINIO_VARIABLE: Final = "TERROIR_MINIO_IMAGE"
_UNDERSTOOD: Final = frozenset(
    {
        "build", "cap_drop", "command", "depends_on", "env_file", "environment", "healthcheck", "image", "init",
        "networks", "ports", "read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "user",
        "volumes",
    }
)  # fmt: skip
"""Keys of a service; another one would be left out silently, so it is refused."""


def make_secrets(root: Path, say: Callable[[str], None]) -> None:
    """Keys of the object store for its own container and for those that read and write; kept if they are there."""
    folder = root / _SECRETS
    if all((folder / name).exists() for name in ("minio.env", "store.env")):
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    user, key = f"terroir-{secrets.token_hex(4)}", secrets.token_urlsafe(30)
    written = {
        "minio.env": {"MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": key},
        "store.env": {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": key},
    }
    for name, variables in written.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text("".join(f"{variable}={value}\n" for variable, value in variables.items()))
    say(f"keys of the object store made in {_SECRETS}")


def free_ports() -> dict[str, int]:
    """A free port of loopback for each service, for a second set of containers beside somebody's own."""
    with ExitStack() as opened:
        # All are open at once, so that none is told twice.
        probes = {name: opened.enter_context(socket.create_server(("127.0.0.1", 0))) for name in SERVICES}
        return {name: int(probe.getsockname()[1]) for name, probe in probes.items()}


def published(ports: Mapping[str, int]) -> dict[str, str]:
    """The variables of the file that publish services at these ports."""
    return {f"TERROIR_PUBLISHED_{name.upper()}": str(port) for name, port in ports.items()}


@dataclass(frozen=True)
class Service:
    """One service of the file."""

    name: str
    container: str
    fields: Mapping[str, Any]

    @property
    def image(self) -> str:
        """What it runs."""
        return str(self.fields["image"])

    @property
    def waits_for(self) -> dict[str, str]:
        """Condition by service."""
        return {name: told["condition"] for name, told in self.fields.get("depends_on", {}).items()}

    @property
    def health_command(self) -> list[str]:
        """What asks it whether it is ready; empty if nobody asks."""
        test = self.fields.get("healthcheck", {}).get("test", [])
        return [str(word) for word in test[1:]]

    def run_arguments(self, project: str, root: Path) -> list[str]:
        """Arguments of `podman run` that mean what the file says."""
        told = self.fields
        arguments = ["--detach", "--name", self.container, "--label", f"{project}.service={self.name}"]
        arguments += [f"--network={project}_{network}:alias={self.name}" for network in told["networks"]]
        arguments += [f"--env={name}={value}" for name, value in told.get("environment", {}).items()]
        arguments += [f"--env-file={root / path}" for path in told.get("env_file", ())]
        arguments += [f"--publish={port}" for port in told.get("ports", ())]
        arguments += [f"--tmpfs={folder}" for folder in told.get("tmpfs", ())]
        arguments += [f"--cap-drop={capability}" for capability in told.get("cap_drop", ())]
        arguments += [f"--security-opt={option.removesuffix(':true')}" for option in told.get("security_opt", ())]
        arguments += [f"--volume={project}_{volume}" for volume in told.get("volumes", ())]
        if "user" in told:
            arguments.append(f"--user={told['user']}")
        if "shm_size" in told:
            arguments.append(f"--shm-size={told['shm_size']}")
        if "stop_grace_period" in told:
            arguments.append(f"--stop-timeout={str(told['stop_grace_period']).removesuffix('s')}")
        arguments += ["--read-only", "--read-only-tmpfs=false"] if told.get("read_only") else []
        arguments += ["--init"] if told.get("init") else []
        arguments += [f"--restart={told['restart']}"] if "restart" in told else []
        return [*arguments, self.image, *map(str, told.get("command", ()))]


@dataclass(frozen=True)
class Composition:
    """What compose.yaml says."""

    root: Path
    project: str
    services: tuple[Service, ...]
    """Each after those that it waits for."""
    networks: Mapping[str, Mapping[str, Any]]
    volumes: tuple[str, ...]

    @classmethod
    def load(
        cls, root: Path, project: str = "", environment: Mapping[str, str] = MappingProxyType(os.environ)
    ) -> Composition:
        """Read it; `project` other than the file's own keeps a second set of containers apart. Raises ImagesError."""
        told = yaml.safe_load(_with_variables((root / _FILE).read_text(encoding="utf-8"), environment))
        name = project or str(told["name"])
        services = {
            service: Service(service, f"{name}_{service}", fields) for service, fields in told["services"].items()
        }
        for service in services.values():
            if unknown := set(service.fields) - _UNDERSTOOD:
                raise ImagesError(
                    f"{_FILE}: service {service.name} has {', '.join(sorted(unknown))}, which only docker compose "
                    f"understands; keys that run here: {', '.join(sorted(_UNDERSTOOD))}"
                )
        return cls(root, name, tuple(_in_order(services)), told["networks"], tuple(told["volumes"]))

    def up(self, engine: Engine, say: Callable[[str], None]) -> None:
        """Start everything and wait until all services are ready; raises ImagesError with the last log lines."""
        make_secrets(self.root, say)
        if engine.name == "docker":
            engine.show("compose", "--file", str(self.root / _FILE), "--project-name", self.project, "up", "--wait")
            return
        self._ensure_images(engine)
        for network, fields in self.networks.items():
            if engine.status("network", "exists", f"{self.project}_{network}"):
                internal = ["--internal"] if fields.get("internal") else []
                engine.run("network", "create", *internal, f"{self.project}_{network}")
        began = time.monotonic()
        for service in self.services:
            for other, condition in service.waits_for.items():
                if condition == "service_healthy":
                    self._await(engine, self.service(other))
            if engine.status("container", "exists", service.container):
                engine.run("run", *service.run_arguments(self.project, self.root))
            elif engine.run("container", "inspect", service.container, "--format", "{{.State.Running}}") != "true\n":
                engine.run("start", service.container)
            say(f"{service.name} started after {time.monotonic() - began:.1f} s")
        for service in self.services:
            self._await(engine, service)
        say(
            f"all services are ready after {time.monotonic() - began:.1f} s; `terroir --help` on this machine asks them"
        )

    def down(self, engine: Engine, *, volumes: bool = False) -> None:
        """End and remove containers and networks, and with `volumes` what they stored."""
        if engine.name == "docker":
            gone = ["--volumes"] if volumes else []
            engine.show("compose", "--file", str(self.root / _FILE), "--project-name", self.project, "down", *gone)
            return
        for service in reversed(self.services):
            engine.run("stop", "--ignore", service.container)
            engine.run("rm", "--ignore", "--force", service.container)
        for network in self.networks:
            engine.run("network", "rm", "--force", f"{self.project}_{network}")
        if volumes:
            engine.run("volume", "rm", "--force", *(f"{self.project}_{volume}" for volume in self.volumes))

    def service(self, name: str) -> Service:
        """One by its name."""
        return next(service for service in self.services if service.name == name)

    def _ensure_images(self, engine: Engine) -> None:
        for service in self.services:
            if engine.has(service.image):
                continue
            if "build" in service.fields:
                raise ImagesError(f"{service.image} is missing; run: python scripts/images.py build")
            try:
                engine.run("pull", service.image)
            except ImagesError as error:
                raise ImagesError(
                    f"{service.image} could not be pulled; `python scripts/images.py minio` makes {MINIO_IMAGE}, "
                    f"which {_MINIO_VARIABLE} then names: {error}"
                ) from error

    def _await(self, engine: Engine, service: Service) -> None:
        until = time.monotonic() + _READY_SECONDS
        while service.health_command and engine.status("exec", service.container, *service.health_command):
            if time.monotonic() > until:
                log = engine.logs(service.container)
                raise ImagesError(f"{service.name} was not ready after {_READY_SECONDS:.0f} s; its last lines:\n{log}")
            time.sleep(_LOOK_SECONDS)


def _with_variables(text: str, environment: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environment.get(found[1]) or found[2] or "", text)


def _in_order(services: Mapping[str, Service]) -> Iterator[Service]:
    waiting = dict(services)
    while waiting:
        free = [name for name, service in waiting.items() if not set(service.waits_for) & set(waiting)]
        if not free:
            raise ImagesError(f"{_FILE}: {', '.join(waiting)} wait for each other")
        for name in free:
            yield waiting.pop(name)
