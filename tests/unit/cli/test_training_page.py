"""docs/training.md tells a true story: its file and its commands for this machine are run in order, as they stand.

The base alone is another one, of a few channels, as what is drawn does not matter. What goes to the service is parsed
in test_docs_commands.py, and submitted in tests/e2e.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from terroir.cli.main import app
from terroir.training.config import TrainConfig
from terroir.training.config.parser import parse_config
from terroir.training.local import run as local_run
from tests.unit.training.small_bases import small_sd
from tests.unit.training.training_kit import png

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
STYLE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
HERE = [
    shlex.split(line)[1:]
    for line in re.findall(r"^ {4}(terroir train .*)$", PAGE, re.MULTILINE)
    if " profiles" in line or "--local" in line or "--config style.yaml" in line
]
KEYS = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:: [^`]*)?`", PAGE))
NO_KEYS = {"file_name"}


@pytest.mark.slow
def test_the_commands_for_this_machine_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(number))
        (tmp_path / "pictures" / f"{number}.txt").write_text(f"a red house number {number}")
    (tmp_path / "style.yaml").write_text(STYLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local_run, "BASE_DIR", small_sd(tmp_path / "base"))
    # Two threads that share a core with other tests wait for each other at every operation.
    monkeypatch.setattr(local_run.os, "sched_getaffinity", lambda _: {0})
    assert len(HERE) >= 7
    for arguments in HERE:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0 and done.exception is None, (arguments, done.output, done.exception)
    for folder, steps, rank in (("out", 20, 16), ("longer", 40, 8)):
        files = {path.name for path in (tmp_path / folder).iterdir()}
        assert files >= {"ink.safetensors", "ink.diffusers.safetensors", "train.log", "config.yaml", "state"}
        kept = parse_config((tmp_path / folder / "config.yaml").read_text()).config
        assert (kept.max_train_steps, kept.lora_rank) == (steps, rank)


def test_the_page_names_keys_that_exist() -> None:
    assert len(KEYS) > 20
    assert set(TrainConfig.model_fields) >= KEYS - NO_KEYS, KEYS - set(TrainConfig.model_fields)
