"""From the text of a YAML file to a checked configuration, with errors that name the key and the next step."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from terroir.training.config import SYNONYMS, TrainConfig
from terroir.training.errors import ConfigInvalid

MAX_CONFIG_BYTES: Final = 256 * 1024
_KEYS: Final = tuple(TrainConfig.model_fields)


@dataclass(frozen=True)
class ParsedConfig:
    """A configuration and what is allowed in it but probably not meant."""

    config: TrainConfig
    warnings: tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses what YAML lets pass silently: repeated keys and aliases that grow."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ConfigInvalid("the YAML uses an alias (*name): write the value out", reason="CONFIG_NOT_YAML")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise ConfigInvalid(
                    f"key {key.value!r} appears twice (line {key.start_mark.line + 1}); keep one",
                    reason="CONFIG_KEY_TWICE",
                    field=str(key.value),
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def parse_config(text: str) -> ParsedConfig:
    """Read a run's YAML.

    Raises ConfigInvalid: CONFIG_TOO_LARGE, CONFIG_NOT_YAML, CONFIG_KEY_TWICE, CONFIG_KEY_UNKNOWN, CONFIG_VALUE.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_CONFIG_BYTES:
        raise ConfigInvalid(
            f"configuration of {size} bytes exceeds {MAX_CONFIG_BYTES}; a run needs less than one kilobyte",
            reason="CONFIG_TOO_LARGE",
        )
    return config_from_mapping(_load(text))


def config_from_mapping(values: dict[str, Any]) -> ParsedConfig:
    """Check keys and values; raises ConfigInvalid as parse_config does."""
    resolved = _resolve_synonyms(values)
    try:
        config = TrainConfig.model_validate(resolved)
    except ValidationError as error:
        raise _value_error(error.errors()[0]) from error
    return ParsedConfig(config, tuple(_warnings(config, set(resolved))))


def dump_config(config: TrainConfig) -> str:
    """YAML with every key, which parses to an equal configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _load(text: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        place = " ".join(str(error).split()) or type(error).__name__
        raise ConfigInvalid(f"the configuration is no YAML: {place[:300]}", reason="CONFIG_NOT_YAML") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigInvalid(
            f"the configuration is a {type(values).__name__}; write `key: value` lines", reason="CONFIG_NOT_YAML"
        )
    return {str(key): value for key, value in values.items()}


def _resolve_synonyms(values: dict[str, Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for key, value in values.items():
        target = SYNONYMS.get(key, key)
        if target not in _KEYS:
            raise _unknown_key(key)
        if target in resolved:
            raise ConfigInvalid(
                f"key {key!r} means {target!r}, which is set too; keep one", reason="CONFIG_KEY_TWICE", field=target
            )
        resolved[target] = value
    return resolved


def _unknown_key(key: str) -> ConfigInvalid:
    nearest = difflib.get_close_matches(key.lower(), (*_KEYS, *SYNONYMS), n=1, cutoff=0.0)[0]
    return ConfigInvalid(
        f"unknown key {key[:80]!r}; the nearest is {nearest!r} (all keys: docs/training-config.md)",
        reason="CONFIG_KEY_UNKNOWN",
        field=key[:80],
        metadata={"nearest": nearest},
    )


def _value_error(error: ErrorDetails) -> ConfigInvalid:
    key = str(error["loc"][0]) if error["loc"] else ""
    given = "" if not key else f" {str(error['input'])[:80]!r}"
    message = error["msg"].removeprefix("Value error, ")
    return ConfigInvalid(
        f"{key}{given}: {message} (docs/training-config.md)".lstrip(": "), reason="CONFIG_VALUE", field=key or None
    )


def _warnings(config: TrainConfig, given: set[str]) -> list[str]:
    warnings = []
    if config.max_train_steps is not None and config.lr_warmup_steps >= config.max_train_steps:
        warnings.append(
            f"lr_warmup_steps {config.lr_warmup_steps} is not below max_train_steps {config.max_train_steps}: "
            "the full learning rate is never reached"
        )
    if config.alpha > 2 * config.lora_rank:
        warnings.append(
            f"lora_alpha {config.alpha:g} is more than twice lora_rank {config.lora_rank}: updates are large"
        )
    if config.learning_rate > 1e-2 and config.optimizer != "sgd":
        warnings.append(f"learning_rate {config.learning_rate:g} is high for {config.optimizer}: 1e-4 to 3e-3 is usual")
    if "dataset" in given and "train_data_dir" in given:
        warnings.append(
            "dataset and train_data_dir are both set: the service reads dataset, a local run train_data_dir"
        )
    return warnings
