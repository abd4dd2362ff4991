"""The contract's TrainConfig has exactly the keys of the model, and carries any configuration without loss."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from any_config import any_keys
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, example, given, settings

from terroir._proto.training.v1 import config_pb2 as pb
from terroir.training.config import TrainConfig
from terroir.training.config.messages import UNSET, enum_prefix, given_keys, message_of, to_message
from terroir.training.config.parser import config_from_mapping, dump_config, parse_config
from terroir.training.config.rules import Rule, rule_of
from terroir.training.errors import ConfigInvalid

PROTO = (Path(__file__).parents[3] / "proto" / "terroir" / "training" / "v1" / "config.proto").read_text()
FIELDS = {field.name: field for field in pb.TrainConfig.DESCRIPTOR.fields if field.name != UNSET}
SCALARS = {
    "yes or no": FieldDescriptor.TYPE_BOOL,
    "number": FieldDescriptor.TYPE_DOUBLE,
    "text": FieldDescriptor.TYPE_STRING,
    "choice": FieldDescriptor.TYPE_ENUM,
    "list": FieldDescriptor.TYPE_STRING,
    "mapping": FieldDescriptor.TYPE_MESSAGE,
}


def test_the_contract_has_every_key_of_the_model_and_no_other() -> None:
    assert set(FIELDS) == set(TrainConfig.model_fields)


def wire_type(rule: Rule) -> int:
    if rule.kind == "whole number":
        return FieldDescriptor.TYPE_INT32 if (rule.high or 0) < 2**31 else FieldDescriptor.TYPE_INT64
    return SCALARS[rule.kind]


@pytest.mark.parametrize("name", TrainConfig.model_fields)
def test_a_key_has_the_same_type_and_values_in_the_contract(name: str) -> None:
    rule, field = rule_of(TrainConfig.model_fields[name]), FIELDS[name]
    assert field.type == wire_type(rule)
    assert field.is_repeated == (rule.kind in ("list", "mapping"))
    assert field.has_presence == (rule.kind not in ("list", "mapping", "choice"))
    if rule.kind == "mapping":
        assert field.message_type.fields_by_name["value"].type == wire_type(rule.entries or rule)
    if field.enum_type is not None:
        values = [value.name.removeprefix(enum_prefix(field.enum_type)).lower() for value in field.enum_type.values]
        assert values == ["unspecified", *rule.choices]


@pytest.mark.parametrize(("name", "field"), TrainConfig.model_fields.items())
def test_the_contract_explains_a_key_as_the_model_does(name: str, field: Any) -> None:
    comment = re.search(rf"((?:  // .*\n)+)  [\w<>, ]+ {name} = ", PROTO)
    assert comment is not None
    told = " ".join(comment[1].replace("//", " ").split())
    assert told == " ".join(field.description.split()), "copy the description into config.proto, then: make proto"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(any_keys())
@example({"profile": ["noisy-set"], "ema_decay": None})
@example({"profile": ["clean-set"], "epochs": None})
@example({"sample_prompts": [], "block_lr_weights": {"mid_block": 0}, "trigger_word": "", "gpus": 0, "seed": 2**63 - 1})
def test_any_configuration_survives_yaml_model_message_and_back(keys: dict[str, Any]) -> None:
    config = parse_config(dump_config(config_from_mapping(keys).config)).config
    message = pb.TrainConfig.FromString(to_message(config).SerializeToString())
    assert config_from_mapping(given_keys(message)).config == config


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(any_keys(profiles=False))
def test_keys_of_a_message_overrule_yaml_as_they_are(keys: dict[str, Any]) -> None:
    given_ = {key: value for key, value in keys.items() if value not in (None, [], {})}
    over = given_keys(message_of(given_))
    assert (
        parse_config("seed: 3\nepochs: 2", over).config
        == config_from_mapping({"seed": 3, **({} if "max_train_steps" in given_ else {"epochs": 2}), **given_}).config
    )


def test_what_is_unset_on_purpose_overrules_a_profile_and_the_yaml() -> None:
    over = given_keys(pb.TrainConfig(unset_keys=["ema_decay", "sample_prompts", "block_lr_weights"]))
    config = parse_config("profile: noisy-set\nsample_prompts: [tea]\nblock_lr_weights: {mid_block: 0}", over).config
    assert (config.ema_decay, config.sample_prompts, config.block_lr_weights) == (None, (), {})


@pytest.mark.parametrize(
    ("message", "reason", "field", "words"),
    [
        (pb.TrainConfig(unset_keys=["lora_rank"]), "CONFIG_VALUE", "lora_rank", "cannot be unset"),
        (pb.TrainConfig(unset_keys=["lora_rnk"]), "CONFIG_VALUE", "lora_rnk", "cannot be unset"),
        (pb.TrainConfig(unset_keys=["epochs"], epochs=3), "CONFIG_KEY_TWICE", "epochs", "keep one"),
        (pb.TrainConfig(lr_scheduler=99), "CONFIG_VALUE", "lr_scheduler", "upgrade"),  # type: ignore[arg-type]  # of a later contract
    ],
)
def test_a_message_that_means_nothing_is_refused(message: pb.TrainConfig, reason: str, field: str, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words) as error:
        given_keys(message)
    assert (error.value.reason, error.value.field) == (reason, field)


def test_limits_are_the_model_s_for_messages_too() -> None:
    with pytest.raises(ConfigInvalid, match="lora_rank 0 is not allowed: 1 to 256"):
        config_from_mapping(given_keys(pb.TrainConfig(lora_rank=0)))
