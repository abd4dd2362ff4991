"""How a program or a set of files that is no Python package comes onto this machine: from Go modules or from Debian."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

_LAST_LINES: Final = 5
_STRIPPED: Final = "-s -w"


class Recipe(Protocol):
    """One way of making a tool."""

    def make(self, name: str, version: str, scratch: Path) -> Path:
        """Make it in `scratch`, an empty folder, and say where; raises RuntimeError with the next step."""


@dataclass(frozen=True)
class GoInstall:
    """A program that `go install module@version` makes."""

    module: str
    command: str
    """Name of the program that Go makes of it."""

    def make(self, name: str, version: str, scratch: Path) -> Path:
        """`go install` with a folder of its own."""
        _go(
            name, scratch, "install", f"-ldflags={_STRIPPED}", f"{self.module}@{version}",
            environment={"GOBIN": str(scratch)},
        )  # fmt: skip
        return scratch / self.command


@dataclass(frozen=True)
class GoBuild:
    """A program of a module that `go install` refuses, because its go.mod has `replace` lines.

    It is built from a go.mod of our own that requires the module. What the module replaces by folders of its own
    repository, which its archive does not hold, is replaced by the same modules as published (`staging` says their
    version).
    """

    module: str
    package: str
    staging: str | None = None
    ldflags: str = ""

    def make(self, name: str, version: str, scratch: Path) -> Path:
        """`go build` in the scratch, beside a go.mod of our own."""
        theirs = _go_mod(name, scratch, self.module, version)
        lines = ["module terroir.local/tools", f"go {theirs['Go']}", f"require {self.module} {version}"]
        # Defaults of Go's libraries come from the main module: theirs, as in the program that they publish.
        lines += [f"godebug {one['Key']}={one['Value']}" for one in theirs.get("Godebug") or ()]
        if self.staging:
            lines += [
                f"replace {one['Old']['Path']} => {one['Old']['Path']} {self.staging}"
                for one in theirs.get("Replace") or ()
                if one["New"]["Path"].startswith("./")
            ]
        (scratch / "go.mod").write_text("\n".join(lines) + "\n")
        flags = f"-ldflags={_STRIPPED} {self.ldflags}".rstrip()
        _go(name, scratch, "build", "-mod=mod", flags, "-o", str(scratch / "built"), self.package)
        return scratch / "built"


@dataclass(frozen=True)
class GoModuleFiles:
    """Files of a module's archive, such as the definitions of its resources; flat in one folder."""

    module: str
    patterns: tuple[str, ...]

    def make(self, name: str, version: str, scratch: Path) -> Path:
        """Copy what matches out of Go's module cache."""
        folder = _module_folder(name, scratch, self.module, version)
        target = scratch / "files"
        target.mkdir()
        for pattern in self.patterns:
            found = sorted(folder.glob(pattern))
            if not found:
                raise RuntimeError(f"{name}: {self.module} {version} has no {pattern}; correct scripts/tools.py")
            for path in found:
                shutil.copyfile(path, target / path.name)  # not copy(): a module's files are read-only
        return target


@dataclass(frozen=True)
class GeneratedDefinitions:
    """CustomResourceDefinitions that controller-gen writes from a module's types, as its authors do for a release."""

    package: str
    generator: str
    """Version of sigs.k8s.io/controller-tools."""

    def make(self, name: str, version: str, scratch: Path) -> Path:
        """`controller-gen crd` over the package of types."""
        generator = "sigs.k8s.io/controller-tools/cmd/controller-gen"
        (scratch / "go.mod").write_text("module terroir.local/tools\n")
        # Not `go mod tidy`: it fetches what the tests of every module below need, some hundred of them.
        _go(name, scratch, "get", f"{generator}@{self.generator}", f"{self.package}@{version}")
        target = scratch / "files"
        generate = ("crd:crdVersions=v1", f"paths={self.package}", f"output:crd:dir={target}")
        _go(name, scratch, "run", generator, *generate)
        return target


@dataclass(frozen=True)
class DebianPackage:
    """A program out of a Debian package, unpacked without installing it and without root."""

    package: str
    path: str

    def make(self, name: str, version: str, scratch: Path) -> Path:
        """Link to the installed program, or unpack the package that apt downloads; an older one is refused."""
        program = scratch / name
        if (installed := shutil.which(name)) is not None:
            program.symlink_to(installed)
        elif shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise RuntimeError(f"{name} is taken from Debian's package {self.package}; here, install it onto the PATH")
        else:
            self._download(name, scratch)
            (archive,) = scratch.glob("*.deb")
            _run(name, scratch, ["dpkg-deb", "-x", str(archive), str(scratch / "unpacked")])
            program = scratch / "unpacked" / self.path
        told = _run(name, scratch, [str(program), "--version"])
        found = re.search(r"version (\d+)\.(\d+)", told)
        if found is None or tuple(map(int, found.groups())) < tuple(map(int, version.split("."))):
            raise RuntimeError(f"{name} here is {told.splitlines()[:1]}; tests need {version} or later on the PATH")
        return program

    def _download(self, name: str, scratch: Path) -> None:
        try:
            _run(name, scratch, ["apt-get", "download", self.package])
        except RuntimeError:
            # A slim image has no lists of packages, and those of the system are root's: ours go into the scratch.
            state = [f"-oDir::State::Lists={scratch / 'lists'}", f"-oDir::Cache={scratch / 'apt'}"]
            (scratch / "lists" / "partial").mkdir(parents=True)
            (scratch / "apt" / "archives" / "partial").mkdir(parents=True)
            _run(name, scratch, ["apt-get", *state, "update"])
            _run(name, scratch, ["apt-get", *state, "download", self.package])


def _go_mod(name: str, scratch: Path, module: str, version: str) -> dict[str, Any]:
    told = json.loads(_go(name, scratch, "mod", "download", "-json", f"{module}@{version}"))
    described: dict[str, Any] = json.loads(_go(name, scratch, "mod", "edit", "-json", told["GoMod"]))
    return described


def _module_folder(name: str, scratch: Path, module: str, version: str) -> Path:
    return Path(json.loads(_go(name, scratch, "mod", "download", "-json", f"{module}@{version}"))["Dir"])


def _go(name: str, scratch: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise RuntimeError(f"{name} is built from source and needs Go (install the package golang-go, 1.24 or later)")
    ours = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath", "GOWORK": "off", **(environment or {})}
    return _run(name, scratch, [go, *arguments], ours)


def _run(name: str, scratch: Path, command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=scratch, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        # `go mod download -json` tells its errors on stdout.
        last = "\n  ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-_LAST_LINES:])
        raise RuntimeError(f"{name} could not be built: {' '.join(command[:2])} said:\n  {last}")
    return done.stdout
