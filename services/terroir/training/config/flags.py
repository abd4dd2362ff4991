"""Every key as a flag of the command line: its name, what it is followed by, and how its text becomes a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from terroir.training.config.docs import default_of, takes
from terroir.training.config.model import SECTIONS, TrainConfig
from terroir.training.config.rules import Rule, rule_of, shown
from terroir.training.config.synonyms import SYNONYMS
from terroir.training.config.yaml_text import load_scalar
from terroir.training.errors import ConfigInvalid

UNSET: Final = "null"
"""What a flag is followed by to unset what the file or a profile sets, as in YAML."""
PATHS: Final = ("train_data_dir", "metadata_path", "reg_data_dir", "output_dir")
"""Keys whose texts are paths of this machine. In a file they are relative to the file, as flags to the caller."""
_PATHS_OR_NAMES: Final = ("base_model", "pretrained_lora")
_METAVARS: Final = {
    "whole number": "N", "number": "NUMBER", "text": "TEXT", "choice": "WORD", "list": "ENTRY",
    "mapping": "NAME=NUMBER", "yes or no": "",
}  # fmt: skip


@dataclass(frozen=True)
class Flag:
    """One key on the command line."""

    spelling: str
    """The key, or a synonym of it."""
    section: str
    """Heading under which it is listed."""
    rule: Rule
    metavar: str
    help: str
    """Empty for a synonym, which is understood but not listed."""

    @property
    def name(self) -> str:
        """With its dashes."""
        return f"--{self.spelling.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value: `--use-dora`, `--no-use-dora`."""
        return self.rule.kind == "yes or no"

    @property
    def is_repeated(self) -> bool:
        """Whether it is given once for each entry."""
        return self.rule.kind in ("list", "mapping")

    def value(self, given: Any) -> Any:
        """The key's value, which the model still checks, of a switch, a text, or the texts of a repeated flag.

        Raises ConfigInvalid (CONFIG_VALUE) for an entry of a mapping without `=`.
        """
        if self.is_switch:
            return bool(given)
        if self.is_repeated:
            return self._entries(list(given))
        if self.rule.optional and given == UNSET:
            return None
        return load_scalar(given) if self.rule.kind in ("whole number", "number") else given

    def _entries(self, given: Sequence[str]) -> Any:
        if given == [UNSET]:
            return [] if self.rule.kind == "list" else {}
        return list(given) if self.rule.kind == "list" else dict(self._pair(entry) for entry in given)

    def _pair(self, entry: str) -> tuple[str, Any]:
        name, equals, value = entry.partition("=")
        if not equals:
            raise ConfigInvalid(
                f"{self.name} {shown(entry)}: write NAME=NUMBER, once for each name (docs/training-config.md)",
                reason="CONFIG_VALUE",
                field=self.spelling,
            )
        return name, load_scalar(value)


def flags() -> Iterator[Flag]:
    """All of them, in the order of the reference; synonyms last."""
    listed = {"profile": "Profile (terroir train profiles)"}
    listed |= {key: title for title, section in SECTIONS for key in section.model_fields}
    for key, section in listed.items():
        field = TrainConfig.model_fields[key]
        yield _flag(key, section, field, _help(field))
    for spelling, key in SYNONYMS.items():
        yield _flag(spelling, listed[key], TrainConfig.model_fields[key], "")


def absolute_paths(keys: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same keys, paths of this machine made absolute from `folder`; names of bases and adapters stay."""
    return {key: _absolute(key, value, folder.absolute()) for key, value in keys.items()}


def _flag(spelling: str, section: str, field: FieldInfo, told: str) -> Flag:
    rule = rule_of(field)
    return Flag(spelling, section, rule, _METAVARS[rule.kind], told)


def _help(field: FieldInfo) -> str:
    default, allowed = default_of(field), takes(field).replace("`", "")
    told = [str(field.description).replace("`", "")]
    if rule_of(field).kind not in ("yes or no", "text"):
        told.append(f"({allowed})")
    return " ".join([*told, *([f"Default: {default}."] if default else [])])


def _absolute(key: str, value: Any, folder: Path) -> Any:
    if key not in (*PATHS, *_PATHS_OR_NAMES) or not value:
        return value
    path = folder / Path(value).expanduser()
    return str(path) if key in PATHS or path.exists() else value
