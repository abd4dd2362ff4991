"""sd-scripts is driven as it stands, with the same pictures and keys; where it is not installed, rows say so."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.areas.training import _Area
from benchmarks.bench import Bench
from benchmarks.peers import kohya_driver
from benchmarks.peers.kohya import MISSING, Kohya, step_seconds
from benchmarks.training import beside_kohya
from benchmarks.training.memory_rows import Trained
from benchmarks.training.one_side import Measured, Order
from terroir.tiny import BASE_DIR
from terroir.training.config import TrainConfig
from tests.unit.benchmarks.bench_kit import MACHINE

PICTURES = Path(__file__).parents[3] / "examples" / "styles" / "jiangnan-ink"
SCRIPT = """\
import sys
import torch
from beside import STEPS
weight = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.AdamW([weight])
for _ in range(STEPS):
    weight.sum().backward()
    optimizer.step()
print("as it stands", sys.argv[1:])
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("training", tmp_path, MACHINE, "a command", quick=True, say=lambda _line: None)


def options(command: Sequence[str]) -> Mapping[str, str]:
    return {name: value for name, value in pairwise(command) if name.startswith("--")}


def test_the_driver_notes_each_update_of_a_script_that_it_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train_network.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("STEPS = 3\n")
    monkeypatch.setattr("sys.path", ["", *sys.path])
    monkeypatch.setattr("sys.argv", ["driver", str(torch.get_num_threads()), str(tmp_path / "train_network.py"), "--a"])
    kohya_driver.main()
    printed = capsys.readouterr().out
    assert printed.startswith("as it stands ['--a']")
    assert len(step_seconds(printed, 3)) == 2
    assert min(step_seconds(printed, 3)) > 0


def test_another_number_of_updates_than_was_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="made 3 updates of 4"):
        step_seconds("loading\n[1.0, 2.0, 3.0]\n", 4)


def test_it_gets_the_same_pictures_captions_and_keys(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"lora_rank": 4, "resolution": 128, "batch_size": 2, "max_train_steps": 7})
    told = options(Kohya(tmp_path, "python").command(BASE_DIR, PICTURES, config, 2, tmp_path))
    folder = Path(told["--train_data_dir"]) / "1_style"
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.txt"))) == len(list(PICTURES.glob("*.png")))
    assert (folder / "01.png").read_bytes() == (PICTURES / "01.png").read_bytes()
    assert (folder / "01.txt").read_text() == "a purple lantern in the city at sunset"
    assert (told["--network_dim"], told["--network_alpha"], told["--resolution"]) == ("4", "4.0", "128,128")
    assert (told["--train_batch_size"], told["--max_train_steps"], told["--mixed_precision"]) == ("2", "7", "no")


def test_its_tokenizer_has_the_words_and_merges_of_the_base(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"max_train_steps": 7})
    told = options(Kohya(tmp_path, "python").command(BASE_DIR, PICTURES, config, 2, tmp_path))
    folder = Path(told["--tokenizer_cache_dir"]) / "openai_clip-vit-large-patch14"
    whole = json.loads((BASE_DIR / "tokenizer" / "tokenizer.json").read_text())["model"]
    assert json.loads((folder / "vocab.json").read_text()) == whole["vocab"]
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    assert len(merges) == len(whole["merges"])
    assert all(len(line.split(" ")) == 2 for line in merges)


@pytest.mark.parametrize(
    "variables", [{}, {"TERROIR_KOHYA_DIR": "/nowhere"}, {"TERROIR_KOHYA_PYTHON": "python", "TERROIR_KOHYA_DIR": ""}]
)
def test_where_it_is_not_installed_its_rows_say_so(
    bench: Bench, variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERROIR_KOHYA_DIR", "TERROIR_KOHYA_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = list(_Area(bench, PICTURES, 2).kohya())
    assert [row.unit for row in found] == ["samples/s", "GiB"]
    assert all(row.ours is None and row.reason == MISSING for row in found)


def test_both_sides_train_the_same_layers_and_speak_of_the_same_steps(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[Order] = []

    def ours(order: Order) -> Measured:
        orders.append(order)
        return Measured(2.0, 0.5, None, 0, peak_bytes=2**30)

    def theirs(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, int]:
        assert command[0] == "its python"
        assert environment["OMP_NUM_THREADS"] == "2"
        return "[0.0, 99.0, 103.0, 107.0]", 2**31

    monkeypatch.setattr(beside_kohya, "measure", ours)
    monkeypatch.setattr(beside_kohya, "watched", theirs)
    config = {"max_train_steps": 4, "batch_size": 1, "lora_rank": 8}
    trained = Trained("a base", BASE_DIR, PICTURES, config, 2)
    speed, memory = beside_kohya.rows(bench, Kohya(tmp_path, "its python"), trained, 2)
    assert (speed.ours, speed.peer, speed.ratio) == (0.5, 0.25, 2.0)
    assert (memory.ours, memory.peer) == (1.0, 2.0)
    assert [order.config["target_modules"] for order in orders] == ["attention-ff"] * 2
