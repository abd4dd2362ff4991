"""From the text of a YAML file to a checked configuration, with errors that name the key and the next step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from terroir.training.config.doubts import doubts
from terroir.training.config.layers import merged
from terroir.training.config.model import TrainConfig
from terroir.training.config.profiles import PROFILES, profile_values
from terroir.training.config.synonyms import SYNONYMS
from terroir.training.config.value_errors import nearest_of, value_error
from terroir.training.config.yaml_text import dump_keys, load_keys
from terroir.training.errors import ConfigInvalid

_KEYS: Final = tuple(TrainConfig.model_fields)


@dataclass(frozen=True)
class ParsedConfig:
    """A configuration and what is allowed in it but probably not meant."""

    config: TrainConfig
    warnings: tuple[str, ...]


def parse_config(text: str, over: Mapping[str, Any] = MappingProxyType({})) -> ParsedConfig:
    """Read a run's YAML; keys of `over`, from a message, overrule it.

    Raises ConfigInvalid: CONFIG_TOO_LARGE, CONFIG_NOT_YAML, CONFIG_KEY_TWICE, CONFIG_KEY_UNKNOWN, CONFIG_VALUE.
    """
    return config_from_mapping(merged([resolve_synonyms(load_keys(text)), resolve_synonyms(over)]))


def config_from_mapping(values: Mapping[str, Any]) -> ParsedConfig:
    """Fill in what the profiles say, check keys and values; raises ConfigInvalid as parse_config does."""
    given = resolve_synonyms(values)
    layers = [*_profile_layers(given.get("profile")), given]
    try:
        config = TrainConfig.model_validate(merged(layers))
    except ValidationError as error:
        raise value_error(error) from error
    return ParsedConfig(config, doubts(config))


def dump_config(config: TrainConfig) -> str:
    """YAML with every key, which parses to an equal configuration."""
    return dump_keys(config.model_dump(mode="json"))


def resolve_synonyms(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same under the keys' own names; raises ConfigInvalid (CONFIG_KEY_UNKNOWN, CONFIG_KEY_TWICE)."""
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


def _profile_layers(names: Any) -> list[dict[str, Any]]:
    """Values of the profiles that are known; the model says what is wrong with the others."""
    listed = [names] if isinstance(names, str) else names if isinstance(names, list | tuple) else []
    return profile_values([name for name in listed if isinstance(name, str) and name in PROFILES])


def _unknown_key(key: str) -> ConfigInvalid:
    nearest = nearest_of(key, (*_KEYS, *SYNONYMS))
    return ConfigInvalid(
        f"unknown key {key[:80]!r}; the nearest is {nearest!r} (all keys: docs/training-config.md)",
        reason="CONFIG_KEY_UNKNOWN",
        field=key[:80],
        metadata={"nearest": nearest},
    )
