"""What a key takes, read from the model's own types: for the reference, the contract and the errors."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from terroir.training.config.limits import LINE, PATTERNS

Kind = Literal["yes or no", "whole number", "number", "text", "choice", "list", "mapping"]
_KINDS: Final[Mapping[type, Kind]] = {bool: "yes or no", int: "whole number", float: "number", str: "text"}
_SHOWN: Final = 80
"""Characters of a wrong value that an error repeats."""


@dataclass(frozen=True)
class Rule:
    """Type and limits of one key, or of an entry of a list or mapping."""

    kind: Kind = "text"
    optional: bool = False
    """Whether it may be unset."""
    choices: tuple[str, ...] = ()
    """All values; in a list, values that stand alone for a whole list."""
    low: float | None = None
    high: float | None = None
    above: bool = False
    """Whether `low` itself is excluded."""
    below: bool = False
    """Whether `high` itself is excluded."""
    multiple_of: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    """Characters of a text, entries of a list or mapping."""
    pattern: str | None = None
    entries: Rule | None = None
    """Of the entries of a list, of the values in a mapping."""

    def __str__(self) -> str:
        """The limits in words, without the kind; empty where there are none."""
        limits = [", ".join(self.choices), self._range(), self._length()]
        if self.pattern not in (None, LINE):
            limits.append(PATTERNS[self.pattern])
        if self.multiple_of is not None:
            limits.append(f"multiple of {self.multiple_of}")
        if self.kind in ("list", "mapping") and self.entries is not None and (each := str(self.entries)):
            limits.append(f"each {each}")
        return ", ".join(limit for limit in limits if limit)

    def _range(self) -> str:
        low, high = (None if bound is None else _number(bound) for bound in (self.low, self.high))
        if low is not None and high is not None and not (self.above or self.below):
            return f"{low} to {high}"
        parts = [None if low is None else f"{'above' if self.above else 'at least'} {low}"]
        parts.append(None if high is None else f"{'below' if self.below else 'at most'} {high}")
        return ", ".join(part for part in parts if part)

    def _length(self) -> str:
        unit = "entries" if self.kind in ("list", "mapping") else "characters"
        parts = ["not empty"] if self.min_length else []
        if self.max_length is not None:
            parts.append(f"at most {_number(self.max_length)} {unit}")
        return ", ".join(parts)


def rule_of(field: FieldInfo) -> Rule:
    """The rule of one field of the model."""
    return _limited(_typed(field.annotation), field.metadata)


def shown(value: Any) -> str:
    """A given value as an error repeats it, however long it is."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _typed(annotation: Any) -> Rule:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return _limited(_typed(inner), metadata)
    if origin in (Union, types.UnionType):
        return _united([_typed(part) for part in get_args(annotation) if part is not type(None)], annotation)
    if origin is tuple:
        return Rule("list", entries=_typed(get_args(annotation)[0]))
    if origin is dict:
        return Rule("mapping", entries=_typed(get_args(annotation)[1]))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Rule("choice", choices=tuple(str(member.value) for member in annotation))
    return Rule(_KINDS[annotation])


def _united(parts: list[Rule], annotation: Any) -> Rule:
    listed = next((part for part in parts if part.kind == "list"), None)
    if listed is not None:
        choices = tuple(choice for part in parts for choice in part.choices)
        return replace(listed, choices=choices)
    return replace(parts[0], optional=type(None) in get_args(annotation))


def _limited(rule: Rule, metadata: list[Any]) -> Rule:
    for limit in metadata:
        match limit:
            case FieldInfo():
                rule = _limited(rule, limit.metadata)
            case StringConstraints():
                rule = _limited(rule, [part for part in limit if part is not None])
            case Ge(ge=int() | float() as low):
                rule = replace(rule, low=low)
            case Gt(gt=int() | float() as low):
                rule = replace(rule, low=low, above=True)
            case Le(le=int() | float() as high):
                rule = replace(rule, high=high)
            case Lt(lt=int() | float() as high):
                rule = replace(rule, high=high, below=True)
            case MultipleOf(multiple_of=int() as step):
                rule = replace(rule, multiple_of=step)
            case MinLen(min_length=length):
                rule = replace(rule, min_length=length)
            case MaxLen(max_length=length):
                rule = replace(rule, max_length=length)
            case _ if pattern := getattr(limit, "pattern", None):
                rule = replace(rule, pattern=str(pattern))
    return rule


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"
