"""`make tools`: programs are built once a version, and what is missing is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tools_recipes import GoInstall

ROOT = Path(__file__).resolve().parents[3]
NAMES = {
    "minio", "toxiproxy", "crane", "oras", "ghz", "grpcurl", "helm", "kubeconform", "prometheus", "promtool",
}  # fmt: skip

# A Go that makes nothing but answers as Go does. $MODULE is the folder of the only module that it knows.
GO = """
import json, os, pathlib, sys
arguments = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
if os.environ.get("BROKEN"):
    sys.exit("go: no such module")
module = pathlib.Path(os.environ.get("MODULE", "/nowhere"))
def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\\n")
    path.chmod(0o755)
match arguments:
    case ["install", *_]:
        for name in "minio server crane oras ghz grpcurl helm kubeconform kwok".split():
            program(pathlib.Path(os.environ["GOBIN"], name))
    case ["mod", "download", "-json", named]:
        print(json.dumps({"Dir": str(module), "GoMod": str(module / "go.mod")}))
    case ["mod", "edit", "-json", path]:
        print((module / "go.mod.json").read_text())
    case ["build", *rest]:
        (module / "our-go.mod").write_text(pathlib.Path("go.mod").read_text())
        program(pathlib.Path(rest[rest.index("-o") + 1]))
"""
APT = """
import os, pathlib, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
ours = any(argument.startswith("-oDir::State::Lists=") for argument in sys.argv)
if "download" in sys.argv:
    if os.environ.get("NO_LISTS") and not ours:
        sys.exit("E: Unable to locate package prometheus")
    pathlib.Path("prometheus_2.42_amd64.deb").write_text("")
"""
DPKG = """
import pathlib, sys
for name in ("prometheus", "promtool"):
    path = pathlib.Path(sys.argv[3], "usr/bin", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\\necho $0, version 2.42.0+ds\\n")
    path.chmod(0o755)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with programs that only pretend: Go and Debian's."""
    (tmp_path / "bin").mkdir()
    for name, body in (("go", GO), ("apt-get", APT), ("dpkg-deb", DPKG)):
        program = tmp_path / "bin" / name
        program.write_text(f"#!{sys.executable}\n{body}")
        program.chmod(0o755)
    return tmp_path


def tools(place: Path, *names: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": str(place / "bin"),
        "TERROIR_TOOLS_CACHE": str(place / "cache"),
        "CALLS": str(place / "calls"),
        **extra,
    }
    command = [sys.executable, str(ROOT / "scripts" / "tools.py"), *names]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def calls(place: Path) -> list[str]:
    return (place / "calls").read_text().splitlines()


def left_in_the_cache(place: Path) -> list[Path]:
    return [path for path in (place / "cache").rglob("*") if not path.is_dir()]


def test_each_program_is_made_once_for_all_clones(place: Path) -> None:
    first = tools(place)
    assert first.returncode == 0, first.stderr
    built = dict(line.split() for line in first.stdout.splitlines() if not line.startswith("tools:"))
    assert set(built) == NAMES
    assert len(calls(place)) == len(NAMES)
    for name, path in built.items():
        assert Path(path).name == name
        assert Path(path).is_relative_to(place / "cache")
        assert os.access(path, os.X_OK)
    assert len(left_in_the_cache(place)) == len(NAMES)
    again = tools(place)
    assert len(calls(place)) == len(NAMES)
    assert again.stdout.splitlines() == [f"{name} {path}" for name, path in built.items()]


def test_a_build_that_fails_is_named_and_leaves_nothing(place: Path) -> None:
    failed = tools(place, "toxiproxy", BROKEN="1")
    assert failed.returncode == 1
    assert "toxiproxy could not be built" in failed.stderr
    assert "no such module" in failed.stderr
    assert not left_in_the_cache(place)


def test_without_go_the_next_step_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match=r"helm is built from source and needs Go \(install the package"):
        GoInstall("helm.sh/helm/v4/cmd/helm", "helm").make("helm", "v4.3.1", tmp_path)


def test_an_unknown_program_is_named(place: Path) -> None:
    refused = tools(place, "no-such")
    assert refused.returncode == 2
    assert "unknown no-such" in refused.stderr


def test_kubernetes_is_built_with_its_staging_modules_as_they_were_published(place: Path) -> None:
    """`go install` refuses k8s.io/kubernetes: its go.mod replaces modules by folders that its archive lacks."""
    module = place / "module"
    module.mkdir()
    described = {
        "Go": "1.26.0",
        "Godebug": [{"Key": "default", "Value": "go1.26"}],
        "Replace": [{"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}}],
    }
    (module / "go.mod.json").write_text(json.dumps(described))
    made = tools(place, "kube-scheduler", MODULE=str(module))
    assert made.returncode == 0, made.stderr
    assert (module / "our-go.mod").read_text().splitlines()[1:] == [
        "go 1.26.0",
        "require k8s.io/kubernetes v1.36.3",
        "godebug default=go1.26",
        "replace k8s.io/api => k8s.io/api v0.36.3",
    ]
    assert "version.gitVersion=v1.36.3" in calls(place)[-1]
    assert os.access(made.stdout.split()[-1], os.X_OK)


def test_definitions_are_taken_out_of_a_module(place: Path) -> None:
    bases = place / "module" / "config" / "crd" / "bases"
    bases.mkdir(parents=True)
    (bases / "keda.sh_scaledobjects.yaml").write_text("kind: CustomResourceDefinition\n")
    (bases / "eventing.keda.sh_cloudeventsources.yaml").write_text("not asked for\n")
    (bases / "keda.sh_scaledobjects.yaml").chmod(0o444)  # as Go leaves the files of its module cache
    made = tools(place, "keda-crds", MODULE=str(place / "module"))
    assert made.returncode == 0, made.stderr
    assert [path.name for path in left_in_the_cache(place)] == ["keda.sh_scaledobjects.yaml"]


def test_a_module_without_the_files_is_named(place: Path) -> None:
    (place / "module").mkdir()
    failed = tools(place, "keda-crds", MODULE=str(place / "module"))
    assert failed.returncode == 1
    assert "github.com/kedacore/keda/v2 v2.21.0 has no config/crd/bases/keda.sh_*.yaml" in failed.stderr
    assert not left_in_the_cache(place)


def test_a_program_of_debian_is_unpacked_also_where_no_package_list_was_fetched(place: Path) -> None:
    made = tools(place, "promtool", NO_LISTS="1")
    assert made.returncode == 0, made.stderr
    assert [path.name for path in left_in_the_cache(place)] == ["promtool"]
    assert [call.split()[-1] for call in calls(place)] == ["prometheus", "update", "prometheus"]


@pytest.mark.parametrize(("version", "used"), [("2.42.0", True), ("3.5.1", True), ("2.9.0", False)])
def test_an_installed_program_is_used_unless_it_is_too_old(version: str, used: bool, place: Path) -> None:
    installed = place / "bin" / "promtool"
    installed.write_text(f"#!/bin/sh\necho promtool, version {version}\n")
    installed.chmod(0o755)
    made = tools(place, "promtool")
    if used:
        assert made.returncode == 0, made.stderr
        assert Path(made.stdout.split()[-1]).resolve() == installed
    else:
        assert made.returncode == 1
        assert "version 2.9.0" in made.stderr
        assert "tests need 2.42 or later" in made.stderr
        assert not left_in_the_cache(place)


def test_where_debians_programs_are_missing_the_next_step_is_said(place: Path) -> None:
    (place / "bin" / "apt-get").unlink()
    failed = tools(place, "promtool")
    assert failed.returncode == 1
    assert "install it onto the PATH" in failed.stderr
