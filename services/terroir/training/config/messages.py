"""The configuration as a message of the contract, both ways, driven by the message's own fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from terroir._proto.training.v1 import config_pb2 as pb
from terroir.training.config.model import TrainConfig
from terroir.training.config.profiles import profile_values
from terroir.training.config.rules import rule_of
from terroir.training.errors import ConfigInvalid

UNSET: Final = "unset_keys"
"""The one field that is no key."""


def to_message(config: TrainConfig) -> pb.TrainConfig:
    """Every key that is set; `given_keys` of the result resolves to an equal configuration, also under its profiles."""
    message = message_of(config.model_dump(mode="json"))
    from_profiles = {key for layer in profile_values(config.profile) for key in layer}
    message.unset_keys.extend(sorted(key for key in from_profiles if _is_empty(getattr(config, key))))
    return message


def message_of(keys: Mapping[str, Any]) -> pb.TrainConfig:
    """Checked keys as a message; those that are None or empty stay unset."""
    message = pb.TrainConfig()
    for name, value in keys.items():
        if not _is_empty(value):
            _set(message, pb.TrainConfig.DESCRIPTOR.fields_by_name[name], value)
    return message


def given_keys(message: pb.TrainConfig) -> dict[str, Any]:
    """The keys that a message sets, or unsets on purpose; unchecked.

    Raises ConfigInvalid: CONFIG_VALUE (a value of a newer contract, a key that cannot be unset), CONFIG_KEY_TWICE.
    """
    keys = {field.name: _read(field, value) for field, value in message.ListFields() if field.name != UNSET}
    for key in message.unset_keys:
        if key in keys:
            raise ConfigInvalid(f"key {key!r} is set and in unset_keys; keep one", reason="CONFIG_KEY_TWICE", field=key)
        keys[key] = _unset(key)
    return keys


def _set(message: pb.TrainConfig, field: FieldDescriptor, value: Any) -> None:
    if field.message_type is not None:
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).extend([value] if isinstance(value, str) else value)
    elif field.enum_type is not None:
        number = field.enum_type.values_by_name[f"{enum_prefix(field.enum_type)}{str(value).upper()}"].number
        setattr(message, field.name, number)
    else:
        setattr(message, field.name, value)


def _read(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return dict(value)
    if field.is_repeated:
        return list(value)
    if field.enum_type is None:
        return value
    known = field.enum_type.values_by_number.get(value)
    if known is None:
        raise ConfigInvalid(
            f"{field.name} {value} is no value of {field.enum_type.full_name} that this service knows (upgrade it)",
            reason="CONFIG_VALUE",
            field=field.name,
        )
    return known.name.removeprefix(enum_prefix(field.enum_type)).lower()


def enum_prefix(enum: EnumDescriptor) -> str:
    """What every value of an enum begins with: that of its value 0, without UNSPECIFIED."""
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def _unset(key: str) -> Any:
    field = TrainConfig.model_fields.get(key)
    rule = None if field is None else rule_of(field)
    if rule is not None and rule.optional:
        return None
    if rule is not None and rule.kind in ("list", "mapping") and not rule.choices:
        return () if rule.kind == "list" else {}
    raise ConfigInvalid(
        f"unset_keys names {key[:80]!r}, which cannot be unset (leave it out for its default; docs/training-config.md)",
        reason="CONFIG_VALUE",
        field=key[:80],
    )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, tuple | list | dict) and not value)
