"""The folder of a run without a server: its store, its log, its configuration and its files."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from terroir.common.clock import SystemClock
from terroir.lora.adapter import Adapter
from terroir.store.local import LocalStore
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.artifacts.curves import Curves
from terroir.training.artifacts.samples import KeptSamples, sampler_of
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Checkpoint, TrainProgress, TrainRun
from terroir.training.errors import CheckpointMismatch, OutputUnwritable
from terroir.training.judging.kept import KeptJudgements
from terroir.training.report.gathering import gathered, read_curves

RUN: Final = "run"
"""Prefix of checkpoints and curves in the folder's store: an output folder holds one run."""
REPORT: Final = "report.html"
_STATE: Final = "state"
_ATTEMPT: Final = 1
_OF_THE_FOLDER: Final = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR,
    errno.EISDIR,
})  # fmt: skip


class OutputFolder:
    """Where a run leaves everything; made if it is not there."""

    def __init__(self, path: Path, *, start_over: bool = False) -> None:
        """`start_over` throws away what an earlier run left to go on from. Raises StoreUnavailable."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if start_over and (path / _STATE / RUN).exists():
            shutil.rmtree(path / _STATE / RUN)
        self.store = LocalStore(path / _STATE)
        self.clock = SystemClock()
        self.checkpoints = Checkpoints(self.store, RUN, self.clock)
        self.judgements = KeptJudgements(self.store, RUN, self.clock)
        self.starts = 1 + len(list((path / _STATE / RUN / "tensorboard").glob("*")))
        """How often the run was started, this time included."""

    def curves(self) -> Curves:
        """The curves of this start, beside those of earlier ones."""
        return Curves(self.store, RUN, self.starts, self.clock)

    def write_report(self, config: TrainConfig, text: str) -> Path:
        """Curves, samples, verdict and evidence as far as there are any, also of a run that failed."""
        facts = {
            "run": config.adapter or self.path.name,
            "pictures": Path(config.train_data_dir).name,
            "base": config.base_model,
            "starts": str(self.starts),
        }
        curves = read_curves(self.store, [(RUN, number) for number in range(1, self.starts + 1)])
        return self.replace(REPORT, gathered(self.store, RUN, self.clock, facts, text, curves))

    def replace(self, name: str, data: bytes) -> Path:
        """Write a file whole or not at all."""
        path = self.path / name
        partial = path.with_suffix(".partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)  # a full disk gets its space back
            raise
        return path

    def log(self, line: str) -> None:
        """Add a line to train.log."""
        with (self.path / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")


class FolderSinks:
    """Keeps checkpoints, curves, samples and log in the output folder; Ctrl-C loses at most `save_steps` steps."""

    def __init__(
        self, folder: OutputFolder, run: TrainRun, curves: Curves, on_progress: Callable[[TrainProgress], None]
    ) -> None:
        self._folder = folder
        self._curves = curves
        self._sampler = sampler_of(run, KeptSamples(folder.store, RUN), folder.log, curves)
        self.progress = on_progress

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._curves.add(step, values)

    def log(self, line: str) -> None:
        """Add a line to the log."""
        self._folder.log(line)

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint."""
        self._folder.checkpoints.save(checkpoint, _ATTEMPT)
        self.log(f"saved checkpoint of step {checkpoint.step}, loss {checkpoint.loss:.4f}")

    def sample(self, step: int, adapter: Adapter) -> None:
        """Draw the run's sample prompts."""
        self._sampler.sample(step, adapter)

    def newest(self) -> Checkpoint | None:
        """The checkpoint to go on from."""
        return self._folder.checkpoints.newest()

    def stop_requested(self) -> bool:
        """Never: Ctrl-C is how people stop it."""
        return False


@contextmanager
def told_of(folder: Path) -> Iterator[None]:
    """Errors of writing into an output folder, and of finding another run in it, as people can act on them.

    Raises OutputUnwritable and CheckpointMismatch.
    """
    try:
        yield
    except CheckpointMismatch as error:
        raise CheckpointMismatch(
            f"{folder} holds another run: {error} (here: another output_dir, or --start-over to lose that run)",
            metadata=error.metadata,
        ) from error
    except OSError as error:
        if error.errno not in _OF_THE_FOLDER:
            raise
        raise OutputUnwritable(
            f"cannot write {error.filename or folder}: {error.strerror or error}; free space there or allow it, or set "
            "another output_dir; what was trained up to the last checkpoint is kept, and the same command goes on from "
            "it",
            field="output_dir",
        ) from error
