"""Presets: ways of using an adapter that suit it, the first being the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_range, ensure_text
from terroir.registry.regions.recipes import MAX_NEGATIVE_CHARACTERS, MAX_WEIGHT

MAX_PRESETS: Final = 16
MAX_NAME_CHARACTERS: Final = 120
MAX_TRIGGER_WORDS: Final = 16
MAX_TRIGGER_CHARACTERS: Final = 64
MAX_TEMPLATE_CHARACTERS: Final = 500
PROMPT_PLACE: Final = "{prompt}"
"""Stands for the caller's words in a template."""


@dataclass(frozen=True)
class Preset:
    """One way of using an adapter."""

    display_name: str
    trigger_words: tuple[str, ...] = ()
    prompt_template: str = ""
    """Prompt with `{prompt}` where the caller's words go; empty for the caller's words alone."""
    negative_prompt: str = ""
    weight: float = 1.0

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Preset:
        """Inverse of `to_body`."""
        return Preset(**{**body, "trigger_words": tuple(body["trigger_words"])})


def ensure_presets(presets: Sequence[Preset], field: str) -> None:
    """Check counts, names, words and weights; raises InvalidArgument."""
    _ensure_few(len(presets), MAX_PRESETS, field)
    names: set[str] = set()
    for index, preset in enumerate(presets):
        at = f"{field}[{index}]"
        ensure_text(preset.display_name, f"{at}.display_name", MAX_NAME_CHARACTERS, min_length=1)
        if preset.display_name in names:
            raise InvalidArgument(
                f"{at}.display_name {preset.display_name[:40]!r} names an earlier preset too; give each its own name",
                reason="PRESET_DUPLICATE",
                field=f"{at}.display_name",
            )
        names.add(preset.display_name)
        _ensure_few(len(preset.trigger_words), MAX_TRIGGER_WORDS, f"{at}.trigger_words")
        for number, word in enumerate(preset.trigger_words):
            ensure_text(word, f"{at}.trigger_words[{number}]", MAX_TRIGGER_CHARACTERS, min_length=1)
        _ensure_template(preset.prompt_template, f"{at}.prompt_template")
        ensure_text(preset.negative_prompt, f"{at}.negative_prompt", MAX_NEGATIVE_CHARACTERS)
        ensure_range(preset.weight, f"{at}.weight", -MAX_WEIGHT, MAX_WEIGHT)


def _ensure_template(template: str, field: str) -> None:
    ensure_text(template, field, MAX_TEMPLATE_CHARACTERS)
    if template and template.count(PROMPT_PLACE) != 1:
        raise InvalidArgument(
            f"{field} has {template.count(PROMPT_PLACE)} times {PROMPT_PLACE} for the caller's words; write it once",
            reason="PRESET_TEMPLATE",
            field=field,
        )


def _ensure_few(count: int, limit: int, field: str) -> None:
    if count > limit:
        raise InvalidArgument(
            f"{field} has {count} entries, at most {limit} are allowed", reason="TOO_MANY", field=field
        )
