"""What is wrong with a value, in words that name the key, the value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from terroir.training.config.limits import LINE, PATTERNS
from terroir.training.config.model import TrainConfig
from terroir.training.config.rules import Rule, rule_of, shown
from terroir.training.errors import ConfigInvalid

_REFERENCE: Final = "(docs/training-config.md)"
_WANTED: Final = {
    "yes or no": "true or false",
    "whole number": "a whole number",
    "number": "a number",
    "text": "a text; one that looks like a number, a date, true or false goes in quotes",
    "choice": "one of",
    "list": "a list, [a, b]",
    "mapping": "a mapping, {name: value}",
}
_NOT_ALLOWED: Final = frozenset(
    {
        "greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "int_parsing_size",
        "too_short", "too_long", "string_too_short", "string_too_long",
    }
)  # fmt: skip
"""pydantic's names of errors where the type is right and the value is not allowed."""


def value_error(error: ValidationError) -> ConfigInvalid:
    """The first thing that is wrong, as CONFIG_VALUE; rules of several keys together have no field."""
    found = _most_exact(error.errors())
    if not found["loc"]:
        return ConfigInvalid(f"{_own_words(found)} {_REFERENCE}", reason="CONFIG_VALUE")
    key, value = str(found["loc"][0]), found["input"]
    if found["type"] == "value_error":
        return ConfigInvalid(f"{key}: {_own_words(found)} {_REFERENCE}", reason="CONFIG_VALUE", field=key)
    place, rule = _place(found, rule_of(TrainConfig.model_fields[key]))
    nearest = nearest_of(value, rule.choices) if isinstance(value, str) else ""
    hint = f"; the nearest is {nearest!r}" if nearest else ""
    return ConfigInvalid(
        f"{place} {_problem(found, rule)}{hint} {_REFERENCE}",
        reason="CONFIG_VALUE",
        field=key,
        metadata={"nearest": nearest} if nearest else {},
    )


def nearest_of(word: str, known: Collection[str]) -> str:
    """The known word that a person may have meant, however unlike; empty if none is known."""
    return difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.0)[0] if known else ""


def _most_exact(errors: list[ErrorDetails]) -> ErrorDetails:
    """The first, or of a key that takes a word or a list the one that names an entry of the list."""
    first = errors[0]
    if not first["loc"]:
        return first
    entries = [one for one in errors if one["loc"][:1] == first["loc"][:1] and isinstance(one["loc"][-1], int)]
    return entries[0] if entries else first


def _own_words(found: ErrorDetails) -> str:
    return found["msg"].removeprefix("Value error, ")


def _place(found: ErrorDetails, rule: Rule) -> tuple[str, Rule]:
    """The key with the entry that is wrong, `sample_prompts[2]` or `block_lr_weights.mid_block`, and its rule."""
    key, *inner = found["loc"]
    if rule.kind == "list" and rule.entries is not None and inner and isinstance(inner[-1], int):
        return f"{key}[{inner[-1]}]", rule.entries
    if rule.kind == "mapping" and inner[-1:] == ["[key]"]:
        return str(key), Rule("text")
    if rule.kind == "mapping" and rule.entries is not None and inner:
        return f"{key}.{inner[0]}", rule.entries
    return str(key), rule


def _problem(found: ErrorDetails, rule: Rule) -> str:
    value = found["input"]
    if value is None and not rule.optional:
        return "has no value: write one or leave the key out"
    if found["type"] == "finite_number":
        return f"{shown(value)} is not finite: {rule}"
    if found["type"] == "string_pattern_mismatch":
        return f"{shown(value)} is not allowed: {PATTERNS[rule.pattern or LINE]}"
    if found["type"] in _NOT_ALLOWED:
        return f"{shown(value)} is not allowed: {rule}"
    if rule.kind == "list" and rule.choices:
        return f"{shown(value)}: write one of {', '.join(rule.choices)}, or a list of names"
    limits = f" {rule}" if rule.kind == "choice" else f", {rule}" if str(rule) else ""
    return f"{shown(value)}: write {_WANTED[rule.kind]}{limits}"
