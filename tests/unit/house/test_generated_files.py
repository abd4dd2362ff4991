"""What is generated and committed is what its source says today."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import lock

ROOT = Path(__file__).resolve().parents[3]


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}


def test_stubs_are_those_of_the_contracts(tmp_path):
    """Run `make proto` when this fails."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    made = tmp_path / "stubs"
    command = [sys.executable, str(ROOT / "scripts" / "generate_protos.py"), "--out", str(made)]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)
    committed = ROOT / "services" / "terroir" / "_proto"
    assert files_below(made) == files_below(committed)
    _, different, unreadable = filecmp.cmpfiles(made, committed, sorted(files_below(made)), shallow=False)
    assert (different, unreadable) == ([], [])


@pytest.mark.parametrize("name", ["bootstrap.txt", "peers.txt", "torch.txt", "all.txt"])
def test_locks_were_made_from_todays_requirements(name):
    """Run `make lock` when this fails."""
    assert lock.recorded_digest(lock.FOLDER / name) == lock.inputs_digest()


@pytest.mark.parametrize("name", ["bootstrap.txt", "peers.txt", "torch.txt", "all.txt"])
def test_locks_carry_hashes_and_no_index(name):
    text = (lock.FOLDER / name).read_text()
    assert "--hash=sha256:" in text
    assert "://" not in text


def test_reference_pages_are_those_of_the_code(tmp_path):
    """Run `make docs` when this fails."""
    command = [sys.executable, str(ROOT / "scripts" / "generate_docs.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    for page in files_below(tmp_path):
        assert (tmp_path / page).read_text() == (ROOT / "docs" / page).read_text(), page


def test_the_contracts_pass_lint(tool):
    subprocess.run([tool("buf"), "lint"], check=True, cwd=ROOT)


def test_the_contracts_break_no_client(tool):
    subprocess.run([tool("buf"), "breaking", "--against", "proto/baseline.binpb"], check=True, cwd=ROOT)


def test_a_removed_field_would_be_noticed(tool, tmp_path):
    """The guard itself: a copy of the contracts without one field is refused."""
    target = tmp_path / "proto"
    for source in (ROOT / "proto").rglob("*.proto"):
        copy = target / source.relative_to(ROOT / "proto")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text().replace("  string trigger_word = 9;\n", ""))
    (tmp_path / "buf.yaml").write_text((ROOT / "buf.yaml").read_text())
    command = [tool("buf"), "breaking", "--against", str(ROOT / "proto" / "baseline.binpb")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "trigger_word" in result.stdout + result.stderr
