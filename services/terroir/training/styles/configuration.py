"""The configuration of a registered style: a run's, without data and adapter, and always judged."""

from __future__ import annotations

from terroir.training.config import PublishGate, TrainConfig
from terroir.training.config.parser import dump_config, parse_config
from terroir.training.errors import ConfigInvalid
from terroir.training.styles.errors import UnjudgedRefused

_OF_A_LOCAL_RUN = ("train_data_dir", "metadata_path")


def style_config(text: str, style: str) -> TrainConfig:
    """The run of a registration; `publish_gate` is `enforce` unless the text says otherwise.

    Raises ConfigInvalid as parse_config does and for keys that the registration itself answers (CONFIG_KEY_DECIDED),
    and UnjudgedRefused.
    """
    config = parse_config(text).config
    if config.dataset:
        raise _decided("dataset", config.dataset, "the registration freezes its pictures itself")
    if config.adapter and config.adapter != style:
        raise _decided("adapter", config.adapter, f"the style's name {style} is its adapter's too")
    for key in _OF_A_LOCAL_RUN:
        if value := getattr(config, key):
            raise _decided(key, value, "the service does not see files of your machine")
    if "publish_gate" not in config.model_fields_set:
        return config.model_copy(update={"publish_gate": PublishGate.ENFORCE})
    if config.publish_gate is PublishGate.OFF:
        raise UnjudgedRefused(
            "publish_gate is off, and a registered style is judged: leave the key out, set it to warn to publish in "
            "any case with the verdict, or train without registering (terroir train submit)",
            field="publish_gate",
        )
    return config


def with_dataset(config_yaml: str, dataset_version: str) -> str:
    """A stored configuration with its frozen dataset."""
    return dump_config(parse_config(config_yaml).config.model_copy(update={"dataset": dataset_version}))


def _decided(key: str, value: str, why: str) -> ConfigInvalid:
    return ConfigInvalid(f"{key} {value[:80]!r}: leave the key out, {why}", reason="CONFIG_KEY_DECIDED", field=key)
