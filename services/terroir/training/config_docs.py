"""Write docs/training-config.md from the configuration model.

python -m terroir.training.config_docs docs/training-config.md
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic.fields import FieldInfo

from terroir.training.config import SYNONYMS, TrainConfig

_SIGNS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def render() -> str:
    """The document."""
    rows = [_row(name, field) for name, field in TrainConfig.model_fields.items()]
    return "\n".join(
        [
            "# Training configuration",
            "",
            "Generated from `services/terroir/training/config.py`; do not edit. One YAML file describes a run.",
            "An unknown key is an error that names the nearest known one.",
            "",
            "| key | default | allowed | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
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
