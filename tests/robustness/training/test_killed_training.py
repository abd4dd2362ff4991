"""Kill -9 at any moment of a local run loses nothing but time: the weights are those of a run that was never killed.

`make soak` does it 50 times; here it is done a few times, once at each kind of place.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from terroir.common.clock import SystemClock
from terroir.store.local import LocalStore
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.local.output_folder import RUN
from tests.robustness.training.killed_run import Death, run
from tests.unit.training.small_bases import small_sd
from tests.unit.training.training_kit import png

KILLS = int(os.environ.get("TERROIR_SOAK_TRAINING_KILLS", "3"))
PICTURES, STEPS = 4, 16
KINDS = ("step", "edge", "checkpoint", "result", "first writes")
CONFIG = f"""\
train_data_dir: pictures
base_model: base
resolution: 32
lora_rank: 2
max_train_steps: {STEPS}
save_steps: 2
gradient_accumulation_steps: 2
learning_rate: 1e-2
text_encoder_lr: 1e-2
text_encoder_stop_step: 9
lr_scheduler: cosine
lora_dropout: 0.2
ema_decay: 0.9
horizontal_flip: true
use_dora: true
"""
EPOCH = PICTURES // 2
"""Steps, as each takes two pictures."""


@dataclass
class Runs:
    """One folder with a configuration, run in processes that are forked from one that has everything imported."""

    folder: Path
    output: str

    def __post_init__(self) -> None:
        self.config = self.folder / f"{self.output}.yaml"
        self.config.write_text(f"{CONFIG}output_dir: {self.output}\n")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["tests.robustness.training.killed_run", "diffusers", "transformers", "peft"]
        )

    def run(self, death: Death) -> bool:
        """Whether the run died there; False: it was over first."""
        process = self._context.Process(target=run, args=(self.config, death))
        process.start()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL), f"{death}: exit status {process.exitcode}"
        return process.exitcode != 0

    @property
    def step(self) -> int:
        """Of the newest checkpoint."""
        newest = self.checkpoints.newest()
        return newest.step if newest else 0

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(LocalStore(self.folder / self.output / "state"), RUN, SystemClock())

    def start_over(self) -> None:
        (self.folder / self.output).rename(self.folder / f"{self.output}-over-{len(list(self.folder.iterdir()))}")

    def results(self) -> list[bytes]:
        """Both files, and the last checkpoint with optimiser, average and counters."""
        newest = self.checkpoints.newest()
        assert newest is not None and newest.step == STEPS
        files = sorted((self.folder / self.output).glob("*.safetensors"))
        assert [file.name for file in files] == ["adapter.diffusers.safetensors", "adapter.safetensors"]
        return [*(file.read_bytes() for file in files), newest.state]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    small_sd(folder / "base")
    (folder / "pictures").mkdir()
    for number in range(PICTURES):
        (folder / "pictures" / f"{number}.png").write_bytes(png(number))
        (folder / "pictures" / f"{number}.txt").write_text(f"a red house number {number}")
    return folder


def death_of(kind: str, draw: random.Random, at: int) -> Death:
    """Somewhere in a run whose newest checkpoint is of step `at`."""
    edges = [step for step in range(EPOCH, STEPS, EPOCH) if step >= at]
    if kind == "edge" and edges:
        return Death(step=draw.choice(edges))
    if kind == "checkpoint":
        return Death(write=draw.randrange(8), share=draw.random(), linked=draw.random() < 0.3)
    if kind == "result":
        return Death(result=draw.randrange(4))
    if kind == "first writes":
        return Death(write=draw.randrange(3), share=draw.choice([0.0, 0.5, 1.0]))
    return Death(step=draw.randrange(at, STEPS + 1))


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * KILLS)
def test_a_run_that_is_killed_again_and_again_gives_the_same_bits(folder: Path) -> None:
    whole, killed = Runs(folder, "whole"), Runs(folder, "killed")
    assert not whole.run(Death())
    expected = whole.results()
    draw, kills = random.Random(7), 0
    while kills < KILLS:
        kind = KINDS[kills % len(KINDS)]
        if killed.run(death_of(kind, draw, killed.step)):
            kills += 1
            continue
        assert killed.results() == expected, f"after {kills} kills"
        killed.start_over()
    killed.run(Death())
    assert killed.results() == expected
