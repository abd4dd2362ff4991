"""The configuration of a run without a server: read, checked, and told what of it such a run takes no notice of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from terroir.training.config import TrainConfig
from terroir.training.config.parser import ParsedConfig, parse_config
from terroir.training.errors import ConfigInvalid

_OF_THE_SERVICE: Final = ("dataset", "reg_dataset", "priority", "team", "preemptible", "max_retries")
_MOST_ACCUMULATED: Final = 1024


def read_local_config(path: Path | None, over: Mapping[str, Any]) -> ParsedConfig:
    """The configuration of a file, or of the keys of `over` alone; those overrule it.

    A run with several workers becomes one of a single worker that makes as many more passes a step. Raises
    ConfigInvalid as parse_config does, and for a file that cannot be read (CONFIG_MISSING) or names no folder of
    pictures (DATASET_MISSING).
    """
    try:
        text = "" if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"cannot read {path}: {error}", reason="CONFIG_MISSING") from error
    parsed = parse_config(text, over)
    if not parsed.config.train_data_dir:
        raise ConfigInvalid(
            f"{path or 'the run'} has no train_data_dir: set it to the folder of the pictures (a `dataset` is read by "
            "the service: terroir train submit)",
            reason="DATASET_MISSING",
            field="train_data_dir",
        )
    if parsed.config.rating_gate:
        raise ConfigInvalid(
            "rating_gate: people rate what a job of the service draws (terroir train rate); leave the key out, or "
            "submit the run (terroir train submit)",
            reason="CONFIG_VALUE",
            field="rating_gate",
        )
    warnings = (*parsed.warnings, *_of_the_service(parsed.config))
    return replace(parsed, config=_of_one_worker(parsed.config), warnings=warnings)


def _of_the_service(config: TrainConfig) -> Iterator[str]:
    for key in _OF_THE_SERVICE:
        if (value := getattr(config, key)) != TrainConfig.model_fields[key].get_default():
            yield f"{key} {value}: a run without a server takes no notice of it"
    if config.num_workers > 1:
        yield f"num_workers {config.num_workers}: this run has one worker, which makes as many more passes a step"


def _of_one_worker(config: TrainConfig) -> TrainConfig:
    passes = config.gradient_accumulation_steps * config.num_workers
    if passes > _MOST_ACCUMULATED:
        raise ConfigInvalid(
            f"num_workers {config.num_workers} × gradient_accumulation_steps {config.gradient_accumulation_steps} are "
            f"{passes} passes a step of the one worker here, more than {_MOST_ACCUMULATED}; lower one of them",
            reason="CONFIG_VALUE",
            field="num_workers",
        )
    return config.model_copy(update={"num_workers": 1, "gradient_accumulation_steps": passes})
