"""`make tools`: programs are built once a version, and what is missing is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GO = """#!/bin/sh
echo "$@" >> "$CALLS"
[ -z "$BROKEN" ] || { echo "go: no such module" >&2; exit 1; }
mkdir -p "$GOBIN"
for name in minio server crane oras ghz; do printf '#!/bin/sh\\n' > "$GOBIN/$name"; chmod +x "$GOBIN/$name"; done
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a Go that only pretends."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    return tmp_path


def tools(place: Path, *names: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TERROIR_TOOLS_CACHE": str(place / "cache"),
        "CALLS": str(place / "calls"),
        **extra,
    }
    command = [sys.executable, str(ROOT / "scripts" / "tools.py"), *names]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_each_program_is_built_once_for_all_clones(place: Path) -> None:
    first = tools(place)
    assert first.returncode == 0, first.stderr
    assert len((place / "calls").read_text().splitlines()) == 5
    built = dict(line.split() for line in first.stdout.splitlines() if not line.startswith("tools:"))
    assert set(built) == {"minio", "toxiproxy", "crane", "oras", "ghz"}
    for name, path in built.items():
        assert Path(path).name == name
        assert Path(path).is_relative_to(place / "cache")
        assert os.access(path, os.X_OK)
    again = tools(place)
    assert len((place / "calls").read_text().splitlines()) == 5
    assert again.stdout.splitlines() == [f"{name} {path}" for name, path in built.items()]


def test_a_build_that_fails_is_named_and_leaves_nothing(place: Path) -> None:
    failed = tools(place, "toxiproxy", BROKEN="1")
    assert failed.returncode == 1
    assert "toxiproxy could not be built" in failed.stderr
    assert "no such module" in failed.stderr
    assert not any(path.is_file() for path in (place / "cache").rglob("*"))


def test_an_unknown_program_is_named(place: Path) -> None:
    assert tools(place, "no-such").returncode == 2
