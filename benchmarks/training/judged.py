"""What judging a run costs beside its training, and whether an over-trained adapter is told from a healthy one."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.machine import describe
from benchmarks.rows import Row, Target
from benchmarks.training.one_side import pictures_of
from terroir.common.base_digest import base_digest, component_digests
from terroir.common.clock import SystemClock
from terroir.lora.adapter import Adapter
from terroir.store.local import LocalStore
from terroir.tiny import BASE_DIR
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.config import TrainConfig
from terroir.training.engine.cache import MemoryArrayCache
from terroir.training.engine.ports import Checkpoint, Picture, TrainProgress, TrainRun
from terroir.training.engine.train import train
from terroir.training.judging.judgement import Judgement
from terroir.training.judging.kept import KeptJudgements
from terroir.training.judging.prompts import Base
from terroir.training.judging.run import Hears, JudgedRun, judge_run

CHECKOUT: Final = Path(__file__).resolve().parents[2]
EXAMPLE: Final = CHECKOUT / "examples" / "styles" / "jiangnan-ink"
RESULTS: Final = CHECKOUT / "benchmarks" / "results" / "separation.json"
DEMO: Final[dict[str, Any]] = {
    "lora_rank": 8, "lora_alpha": 8, "resolution": 64, "batch_size": 8, "max_train_steps": 220, "learning_rate": 3e-3,
    "lr_scheduler": "cosine", "lr_warmup_steps": 10, "save_steps": 110, "seed": 7, "publish_gate": "enforce",
}  # fmt: skip
"""As the example styles are trained."""
OVER_TRAINED: Final[dict[str, Any]] = DEMO | {
    "batch_size": 4, "lr_scheduler": "constant", "max_train_steps": 2000, "save_steps": 500, "judge_checkpoints": 2,
}  # fmt: skip
"""Four pictures, each seen two thousand times."""
_TRIGGER: Final = "jiangnan ink style"


@dataclass(frozen=True)
class JudgedSeconds:
    """A run with its judgement."""

    train: float
    judge: float
    judgement: Judgement


class _Keeping:
    """Sinks that keep checkpoints alone."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def progress(self, progress: TrainProgress) -> None:
        """Nobody watches."""

    def scalars(self, step: int, values: Any) -> None:
        """Nobody looks."""

    def log(self, line: str) -> None:
        """Nobody reads."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep it."""
        self._checkpoints.save(checkpoint, 1)

    def sample(self, step: int, adapter: Adapter) -> None:
        """Draw nothing."""

    def newest(self) -> Checkpoint | None:
        """An interrupted run goes on."""
        return self._checkpoints.newest()

    def stop_requested(self) -> bool:
        """Never."""
        return False


def judged(folder: Path, pictures: Sequence[Picture], keys: dict[str, Any], threads: int) -> JudgedSeconds:
    """Train on the tiny base and judge, everything kept below `folder`."""
    config, store, clock = TrainConfig.model_validate(keys), LocalStore(folder), SystemClock()
    checkpoints, components = Checkpoints(store, "jobs/a", clock), component_digests(BASE_DIR)
    run = TrainRun(config, BASE_DIR, components, trigger_word=_TRIGGER, threads=threads)
    since = time.monotonic()
    train(run, pictures, _Keeping(checkpoints), MemoryArrayCache(), clock)
    trained = time.monotonic()
    base = Base(BASE_DIR, base_digest(components))
    judgement = judge_run(
        JudgedRun(config, base, _TRIGGER, pictures, threads=threads), checkpoints,
        KeptJudgements(store, "jobs/a", clock), Hears(),
    )  # fmt: skip
    return JudgedSeconds(trained - since, time.monotonic() - trained, judgement)


def over_trained(steps: int) -> dict[str, Any]:
    """Keys of a run that is judged in the middle and at its end."""
    return OVER_TRAINED | {"max_train_steps": steps, "save_steps": steps // 2}


def rows(bench: Bench, pictures: Sequence[Picture], threads: int) -> Iterator[Row]:
    """The cost; quick: of a run that is too short to mean anything."""
    keys = DEMO if not bench.quick else DEMO | {"max_train_steps": 12, "save_steps": 6, "lr_warmup_steps": 0}
    found = judged(bench.work / "judged", pictures, keys, threads)
    bench.say(
        f"trained in {found.train:.1f} s, judged in {found.judge:.1f} s with {found.judgement.pictures} pictures: "
        f"{found.judgement.verdict}, step {found.judgement.chosen_step}"
    )
    steps = keys["max_train_steps"]
    yield bench.row(
        f"judging a run of {steps} steps, tiny base, {threads} threads, as a share of its training", "share",
        found.judge / found.train, target=None if bench.quick else Target(0.4),
        reason="the run is too short" if bench.quick else None,
    )  # fmt: skip


def separation(folder: Path, pictures: Sequence[Picture], steps: int, threads: int) -> dict[str, Any]:
    """A healthy run of all pictures beside one of four pictures that were each seen `steps` times."""
    runs = {"healthy": judged(folder / "healthy", pictures, DEMO, threads)}
    runs["over-trained"] = judged(folder / f"over-{steps}", pictures[:4], over_trained(steps), threads)
    return {
        "command": f"python -m benchmarks.training.judged --steps {steps}",
        "machine": asdict(describe(CHECKOUT)),
        "runs": {name: _told(found) for name, found in runs.items()},
    }


def _told(found: JudgedSeconds) -> dict[str, Any]:
    judgement = found.judgement
    return {
        "train_seconds": round(found.train, 1),
        "judge_seconds": round(found.judge, 1),
        "pictures": judgement.pictures,
        "chosen_step": judgement.chosen_step,
        "left_out": list(judgement.left_out),
        "checkpoints": [
            {"step": one.step, "verdict": one.verdict.value, **(one.scores.metrics() if one.scores else {})}
            for one in judgement.checkpoints
        ],
    }


def main() -> None:
    """Measure the separation and keep it in benchmarks/results/separation.json."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="how often each of the four pictures is seen")
    parser.add_argument("--work", type=Path, default=None, help="folder to keep runs in, so that they go on")
    given = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        found = separation(given.work or Path(folder), pictures_of(EXAMPLE), given.steps, threads)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
