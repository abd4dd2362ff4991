"""Training on this machine without any server: `terroir train --config style.yaml`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from torch import cuda

from terroir.common.base_digest import base_digest, component_digests
from terroir.common.clock import SystemClock
from terroir.lora.formats import to_diffusers
from terroir.store.local import LocalStore
from terroir.tiny import BASE_DIR, BASE_ID
from terroir.training.adapter_file import kohya_file
from terroir.training.checkpoints import Checkpoints
from terroir.training.config import TrainConfig
from terroir.training.config.flags import absolute_paths
from terroir.training.config.parser import dump_config
from terroir.training.curves import Curves
from terroir.training.engine.cache import StoreArrayCache
from terroir.training.engine.ports import Checkpoint, TrainProgress, TrainResult, TrainRun
from terroir.training.engine.train import train
from terroir.training.errors import BaseUnreadable, CheckpointMismatch
from terroir.training.local_config import read_local_config
from terroir.training.local_data import read_pictures
from terroir.training.pretrained import read_local

_ATTEMPT: Final = 1
_RUN: Final = "run"
"""Prefix of checkpoints and curves in the folder's store: an output folder holds one run."""
_CONFIG_HEAD: Final = (
    "# The whole configuration of the run in this folder, profiles and defaults filled in, paths absolute.\n"
    "# The same again: terroir train --config config.yaml --output-dir ANOTHER\n"
)


@dataclass(frozen=True)
class LocalResult:
    """What a run without a server leaves."""

    files: tuple[Path, ...]
    """The adapter as kohya file and as diffusers file."""
    steps: int
    loss: float


class _FolderSinks:
    """Keeps checkpoints, curves and log in the output folder; Ctrl-C loses at most `save_steps` steps."""

    def __init__(
        self, checkpoints: Checkpoints, curves: Curves, log: Path, on_progress: Callable[[TrainProgress], None]
    ) -> None:
        self._checkpoints = checkpoints
        self._curves = curves
        self._log = log
        self.progress = on_progress

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._curves.add(step, values)

    def log(self, line: str) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")

    def save(self, checkpoint: Checkpoint) -> None:
        self._checkpoints.save(checkpoint, _ATTEMPT)
        self.log(f"saved checkpoint of step {checkpoint.step}, loss {checkpoint.loss:.4f}")

    def newest(self) -> Checkpoint | None:
        return self._checkpoints.newest()

    def stop_requested(self) -> bool:
        return False


def run(
    config_path: Path | None,
    *,
    over: Mapping[str, Any] = MappingProxyType({}),
    start_over: bool = False,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    base_sources: Mapping[str, Path] | None = None,
    threads: int | None = None,
) -> LocalResult:
    """Train from `train_data_dir` into `output_dir`, both relative to the configuration file.

    Keys of `over` overrule the file; without a file they are all there is, and paths are relative to the working
    directory. A run that was interrupted goes on from its last checkpoint when the same configuration is run again;
    `start_over` throws the checkpoints of the folder away first. Raises ConfigInvalid, InvalidArgument (folder missing
    or empty), BaseUnreadable, CheckpointMismatch (the folder holds a run with other keys) and what the engine raises.
    """
    parsed, home = read_local_config(config_path, over), Path.cwd() if config_path is None else config_path.parent
    config = parsed.config
    folder = _base_folder(config, base_sources or {BASE_ID: BASE_DIR}, home)
    pictures = read_pictures(config, home)
    output = home / config.output_dir
    output.mkdir(parents=True, exist_ok=True)
    if start_over:
        shutil.rmtree(output / "state" / _RUN, ignore_errors=True)
    store, clock = LocalStore(output / "state"), SystemClock()
    components = component_digests(folder)
    cores = threads or len(os.sched_getaffinity(0))
    this_run = TrainRun(
        config=config,
        base_dir=folder,
        component_digests=components,
        device="cpu" if config.gpus == 0 or not cuda.is_available() else "cuda",
        threads=cores,
        start=read_local(config, home, folder),
    )
    checkpoints = Checkpoints(store, _RUN, clock)
    if checkpoints.newest() is None:
        _replace(output / "config.yaml", _told(config, home).encode())
    started = len(list((output / "state" / _RUN / "tensorboard").glob("*")))
    with Curves(store, _RUN, started + 1, clock) as curves:
        sinks = _FolderSinks(checkpoints, curves, output / "train.log", on_progress)
        for warning in parsed.warnings:
            sinks.log(f"warning: {warning}")
        cache = StoreArrayCache(store)
        try:
            result = train(this_run, pictures.data, sinks, cache, clock, pictures.regularisation)
        except CheckpointMismatch as error:
            raise CheckpointMismatch(
                f"{output} holds another run: {error} (here: another output_dir, or --start-over to lose that run)",
                metadata=error.metadata,
            ) from error
    _replace(output / "config.yaml", _told(config, home).encode())
    return LocalResult(_write(result, config, output, base_digest(components)), result.steps, result.loss)


def _told(config: TrainConfig, home: Path) -> str:
    """The file that runs the same again, wherever it lies."""
    return _CONFIG_HEAD + dump_config(config.model_copy(update=absolute_paths(dict(config), home)))


def _base_folder(config: TrainConfig, sources: Mapping[str, Path], start: Path) -> Path:
    name = config.base_model.removeprefix("bases/")
    folder = sources.get(name) or start / Path(config.base_model).expanduser()
    if not (folder / "model_index.json").is_file():
        raise BaseUnreadable(
            f"base_model {config.base_model!r} is neither {', '.join(sources)} nor a diffusers folder ({folder})",
            field="base_model",
        )
    return folder


def _write(result: TrainResult, config: TrainConfig, output: Path, digest: str) -> tuple[Path, ...]:
    title = config.adapter or "adapter"
    contents = {
        output / f"{title}.safetensors": kohya_file(
            result, config, title=title, base_digest=digest, trigger_word=config.trigger_word
        ),
        output / f"{title}.diffusers.safetensors": to_diffusers(result.adapter),
    }
    for path, data in contents.items():
        _replace(path, data)
    return tuple(contents)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
