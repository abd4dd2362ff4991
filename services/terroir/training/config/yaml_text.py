"""YAML as a run's file has it: what the format lets pass silently is refused; `no` and `off` are words."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from terroir.training.errors import ConfigInvalid

MAX_CONFIG_BYTES: Final = 256 * 1024
_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_FLOAT: Final = "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys and aliases that grow.

    Booleans and numbers are those of YAML 1.2 (core schema, 10.3.2), so that `mixed_precision: no` and
    `publish_gate: off` are words, and `1e-4` is a number.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own class attribute, replaced and never changed
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

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


_Loader.add_implicit_resolver(_BOOLEAN, re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+"), list("-+.0123456789")
)


def load_keys(text: str) -> dict[str, Any]:
    """Keys and values of a run's file, unchecked.

    Raises ConfigInvalid: CONFIG_TOO_LARGE, CONFIG_NOT_YAML, CONFIG_KEY_TWICE.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_CONFIG_BYTES:
        raise ConfigInvalid(
            f"configuration of {size} bytes exceeds {MAX_CONFIG_BYTES}; a run needs less than one kilobyte",
            reason="CONFIG_TOO_LARGE",
        )
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


def load_scalar(text: str) -> Any:
    """What a plain value means in a run's file: `4`, `1e-4`, `true`; any other text is itself."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        return yaml.load(text, Loader=_Loader) if isinstance(node, yaml.ScalarNode) else text
    except (yaml.YAMLError, ValueError, RecursionError, ConfigInvalid):
        return text


def dump_keys(values: dict[str, Any]) -> str:
    """The inverse of `load_keys`, in the order of the mapping."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
