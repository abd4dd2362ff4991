"""Write docs/training-config.md from the configuration model.

python -m terroir.training.config.docs docs/training-config.md
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic.fields import FieldInfo

from terroir.training.config.limits import Section
from terroir.training.config.model import SECTIONS, TrainConfig
from terroir.training.config.synonyms import SYNONYMS

_TABLE = ("| key | default | allowed | meaning |", "| --- | --- | --- | --- |")
_SIGNS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def render() -> str:
    """The document."""
    head = [_row(name, field) for name, field in TrainConfig.model_fields.items() if name == "profile"]
    return "\n".join(
        [
            "# Training configuration",
            "",
            "Generated from `services/terroir/training/config/`; do not edit. One YAML file describes a run.",
            "An unknown key is an error that names the nearest known one.",
            "",
            *_TABLE,
            *head,
            *(line for title, section in SECTIONS for line in _section(title, section)),
            "",
            "## Synonyms",
            "",
            "Spellings of other trainers that are accepted:",
            "",
            "| spelling | key |",
            "| --- | --- |",
            *(f"| `{spelling}` | `{key}` |" for spelling, key in sorted(SYNONYMS.items())),
            "",
        ]
    )


def _section(title: str, section: type[Section]) -> list[str]:
    return ["", f"## {title}", "", *_TABLE, *(_row(name, field) for name, field in section.model_fields.items())]


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_default(field.default)} | {_allowed(field)} | {field.description} |"


def _default(value: Any) -> str:
    if value is None or value == "":
        return ""
    shown = value.value if isinstance(value, Enum) else str(value).lower() if isinstance(value, bool) else f"{value}"
    return f"`{shown}`"


def _allowed(field: FieldInfo) -> str:
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    limits = []
    for limit in field.metadata:
        if (sign := _SIGNS.get(type(limit))) is not None:
            limits.append(f"{sign[1]} {getattr(limit, sign[0]):,}")
        elif isinstance(limit, MultipleOf):
            limits.append(f"multiple of {limit.multiple_of}")
        elif isinstance(limit, MaxLen):
            limits.append(f"at most {limit.max_length:,} characters")
        elif isinstance(limit, MinLen):
            limits.append("not empty")
    return ", ".join(limits)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
