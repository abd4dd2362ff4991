"""Training on this machine without any server: `terroir train --config style.yaml`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from torch import cuda

from terroir.common.base_digest import base_digest, component_digests
from terroir.lora.formats import to_diffusers
from terroir.tiny import BASE_DIR, BASE_ID
from terroir.training.artifacts.adapter_file import kohya_file
from terroir.training.artifacts.pretrained import read_local
from terroir.training.config import TrainConfig
from terroir.training.config.flags import absolute_paths
from terroir.training.config.parser import dump_config
from terroir.training.engine.cache import StoreArrayCache
from terroir.training.engine.ports import TrainProgress, TrainResult, TrainRun
from terroir.training.engine.train import train
from terroir.training.errors import BaseUnreadable
from terroir.training.judging.choosing import Kept, People, choose
from terroir.training.judging.judgement import Judgement
from terroir.training.judging.models import ensure_judgeable
from terroir.training.judging.prompts import Base
from terroir.training.judging.run import JudgedRun
from terroir.training.local.config import read_local_config
from terroir.training.local.data import LocalPictures, read_pictures
from terroir.training.local.output_folder import FolderSinks, OutputFolder, told_of

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
    """Of the checkpoint that they hold."""
    loss: float
    hint: str
    """What the losses suggest to try; empty if nothing."""
    report: Path
    """Curves, samples, verdict and evidence as one HTML file."""
    judgement: Judgement | None = None
    """None where `publish_gate` is off."""


def run_locally(
    config_path: Path | None,
    *,
    over: Mapping[str, Any] = MappingProxyType({}),
    start_over: bool = False,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    base_sources: Mapping[str, Path] | None = None,
    threads: int | None = None,
    judge_model_folder: Path | None = None,
) -> LocalResult:
    """Train from `train_data_dir` into `output_dir`, both relative to the configuration file.

    Keys of `over` overrule the file; without a file they are all there is, and paths are relative to the working
    directory. A run that was interrupted goes on from its last checkpoint when the same configuration is run again;
    `start_over` throws the checkpoints of the folder away first. Raises ConfigInvalid, InvalidArgument (folder missing
    or empty), BaseUnreadable, CheckpointMismatch (the folder holds a run with other keys), OutputUnwritable,
    StoreUnavailable, JudgeModelMissing, StyleRefused and what the engine raises. A base other than the embedded one is
    judged by the CLIP of `judge_model_folder`. The report is written in any case.
    """
    parsed, home = read_local_config(config_path, over), Path.cwd() if config_path is None else config_path.parent
    config = parsed.config
    folder = _base_folder(config, base_sources or {BASE_ID: BASE_DIR}, home)
    pictures = read_pictures(config, home)
    components, cores = component_digests(folder), threads or len(os.sched_getaffinity(0))
    base = Base(folder, base_digest(components))
    ensure_judgeable(config, base.digest, str(judge_model_folder or ""))
    this_run = TrainRun(
        config=config,
        base_dir=folder,
        component_digests=components,
        device="cpu" if config.gpus == 0 or not cuda.is_available() else "cuda",
        threads=cores,
        start=read_local(config, home, folder),
    )
    path = home / Path(config.output_dir).expanduser()
    with told_of(path):
        output = OutputFolder(path, start_over=start_over)
        if output.checkpoints.newest() is None:
            output.replace("config.yaml", _told(config, home))
        for warning in parsed.warnings:
            output.log(f"warning: {warning}")
        judged = JudgedRun(
            config, base, config.trigger_word, pictures.data, this_run.device, judge_model_folder, threads=cores
        )
        try:
            result, judgement = _trained(this_run, judged, pictures, output, on_progress)
        finally:
            report = output.write_report(config, dump_config(config))
        output.replace("config.yaml", _told(config, home))
        files = _write(result, config, output, base.digest)
    return LocalResult(files, result.steps, result.loss, result.hint, report, judgement)


def _trained(
    run: TrainRun,
    judged: JudgedRun,
    pictures: LocalPictures,
    output: OutputFolder,
    on_progress: Callable[[TrainProgress], None],
) -> tuple[TrainResult, Judgement | None]:
    """What is published, and the judgement that chose it."""
    with output.curves() as curves:
        sinks = FolderSinks(output, run, curves, on_progress)
        result = train(run, pictures.data, sinks, StoreArrayCache(output.store), output.clock, pictures.regularisation)
        kept = Kept(output.checkpoints, output.judgements, f"start/{output.starts}")
        return choose(result, judged, kept, sinks, output.clock, People())


def _told(config: TrainConfig, home: Path) -> bytes:
    """The file that runs the same again, wherever it lies."""
    return (_CONFIG_HEAD + dump_config(config.model_copy(update=absolute_paths(dict(config), home)))).encode()


def _base_folder(config: TrainConfig, sources: Mapping[str, Path], start: Path) -> Path:
    name = config.base_model.removeprefix("bases/")
    folder = sources.get(name) or start / Path(config.base_model).expanduser()
    if not (folder / "model_index.json").is_file():
        raise BaseUnreadable(
            f"base_model {config.base_model!r} is neither {', '.join(sources)} nor a diffusers folder ({folder})",
            field="base_model",
        )
    return folder


def _write(result: TrainResult, config: TrainConfig, output: OutputFolder, digest: str) -> tuple[Path, ...]:
    title = config.adapter or "adapter"
    kohya = kohya_file(result, config, title=title, base_digest=digest, trigger_word=config.trigger_word)
    return (
        output.replace(f"{title}.safetensors", kohya),
        output.replace(f"{title}.diffusers.safetensors", to_diffusers(result.adapter)),
    )
