"""Keys that this release reads and keeps, and that nothing acts on yet: refused or told, never silently ignored.

Judgement is there as a library (`training/judging/`), which the driver does not call yet. This file goes with the last
of these keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from terroir.training.config.judging_keys import JudgingKeys
from terroir.training.config.model import TrainConfig
from terroir.training.errors import ConfigInvalid

_WITHOUT_EFFECT: Final = tuple(JudgingKeys.model_fields)
_TOLD: Final = frozenset({"publish_gate", "judge_checkpoints"})
"""Profiles and registrations set these, so a run that carries them is taken, with a warning."""


def without_effect(config: TrainConfig) -> Iterator[str]:
    """A warning for every key that is set and changes nothing."""
    for key in _set(config):
        yield f"{key} {getattr(config, key)}: nothing acts on it in this release"


def ensure_in_force(config: TrainConfig) -> None:
    """Raise ConfigInvalid (CONFIG_KEY_NOT_IN_FORCE) for a key whose effect the caller would miss."""
    for key in _set(config):
        if key not in _TOLD:
            raise ConfigInvalid(
                f"{key} {str(getattr(config, key))[:80]}: nothing acts on it in this release; leave the key out",
                reason="CONFIG_KEY_NOT_IN_FORCE",
                field=key,
            )


def _set(config: TrainConfig) -> Iterator[str]:
    for key in _WITHOUT_EFFECT:
        if getattr(config, key) != TrainConfig.model_fields[key].get_default():
            yield key
