"""Training on this machine without any server: `terroir train --config style.yaml`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from terroir.common.base_digest import base_digest, component_digests
from terroir.common.clock import SystemClock
from terroir.lora.formats import to_diffusers
from terroir.store.local import LocalStore
from terroir.tiny import BASE_DIR, BASE_ID
from terroir.training.adapter_file import config_digest, kohya_file
from terroir.training.checkpoints import Checkpoints
from terroir.training.config import TrainConfig
from terroir.training.config.in_force import ensure_in_force
from terroir.training.config.parser import parse_config
from terroir.training.curves import Curves
from terroir.training.engine.cache import StoreArrayCache
from terroir.training.engine.ports import Checkpoint, TrainProgress, TrainResult, TrainRun
from terroir.training.engine.train import train
from terroir.training.errors import BaseUnreadable, ConfigInvalid
from terroir.training.local_data import read_pictures
from terroir.training.pretrained import read_local

_ATTEMPT = 1


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
    config_path: Path,
    *,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    base_sources: Mapping[str, Path] | None = None,
    threads: int | None = None,
) -> LocalResult:
    """Train from `train_data_dir` into `output_dir`, both relative to the configuration file.

    A run that was interrupted goes on from its last checkpoint when the same configuration is run again. Raises
    ConfigInvalid, InvalidArgument (folder missing or empty), BaseUnreadable and what the engine raises.
    """
    config = _read(config_path)
    folder = _base_folder(config, base_sources or {BASE_ID: BASE_DIR}, config_path.parent)
    pictures = read_pictures(config, config_path.parent)
    output = config_path.parent / config.output_dir
    output.mkdir(parents=True, exist_ok=True)
    store, clock = LocalStore(output / "state"), SystemClock()
    components = component_digests(folder)
    prefix = f"runs/{config_digest(config)[:32]}"
    cores = threads or len(os.sched_getaffinity(0))
    this_run = TrainRun(
        config=config,
        base_dir=folder,
        component_digests=components,
        threads=cores,
        start=read_local(config, config_path.parent, folder),
    )
    with Curves(store, prefix, _ATTEMPT, clock) as curves:
        sinks = _FolderSinks(Checkpoints(store, prefix, clock), curves, output / "train.log", on_progress)
        cache = StoreArrayCache(store)
        result = train(this_run, pictures.data, sinks, cache, clock, pictures.regularisation)
    return LocalResult(_write(result, config, output, base_digest(components)), result.steps, result.loss)


def _read(path: Path) -> TrainConfig:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"cannot read {path}: {error}", reason="CONFIG_MISSING") from error
    config = parse_config(text).config
    ensure_in_force(config)
    if not config.train_data_dir:
        raise ConfigInvalid(
            f"{path} has no train_data_dir: set it to the folder of the pictures (a `dataset` is read by the service: "
            "terroir train submit)",
            reason="DATASET_MISSING",
            field="train_data_dir",
        )
    return config


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
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return tuple(contents)
