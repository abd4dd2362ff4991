"""Reads PromQL as far as consistency needs it: which series an expression selects, how, and what it groups by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|\#.*)
      |(?P<string>"(?:[^"\\]|\\.)*")
      |(?P<duration>\[[^\]]*\])
      |(?P<number>(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)[smhdwy]?)
      |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
      |(?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^=<>(){},@])""",
    re.VERBOSE,
)
_LISTS: Final = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "atan2"})


@dataclass(frozen=True)
class Matcher:
    """`label operator "value"`."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True)
class Selector:
    """One place where series are selected."""

    metric: str
    matchers: tuple[Matcher, ...]
    window: str
    """Of a range selector, such as `5m`; else empty."""
    functions: tuple[str, ...]
    """What it is in, outermost first."""


@dataclass(frozen=True)
class Expression:
    """What was read."""

    selectors: tuple[Selector, ...]
    grouping: frozenset[str]
    """Labels named by `by`, `on` and the like."""


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self.selectors: list[Selector] = []
        self.grouping: set[str] = set()

    def read(self) -> None:
        functions: list[str] = []
        pending = ""
        while (token := self._next()) is not None:
            kind, text = token
            if kind == "name" and text in _LISTS and self._peek() == "(":
                self.grouping |= set(self._labels())
            elif kind == "name" and text not in _WORDS:
                if self._peek() == "(" or self._peek() in _LISTS:
                    pending = text
                else:
                    self._select(text, tuple(name for name in functions if name))
            elif text == "(":
                functions.append(pending)
                pending = ""
            elif text == ")":
                functions.pop()
            elif text == "{":
                raise ValueError("a selector without a metric's name")
        assert not functions, "unbalanced"

    def _select(self, metric: str, functions: tuple[str, ...]) -> None:
        matchers: list[Matcher] = []
        if self._peek() == "{":
            self._next()
            while self._peek() != "}":
                label, operator, value = (self._take() for _ in range(3))
                matchers.append(Matcher(label, operator, value[1:-1].replace("\\\\", "\\").replace('\\"', '"')))
                if self._peek() == ",":
                    self._next()
            self._next()
        window = self._take()[1:-1] if (self._peek() or "").startswith("[") else ""
        self.selectors.append(Selector(metric, tuple(matchers), window, functions))

    def _labels(self) -> Iterator[str]:
        self._next()
        while (text := self._take()) != ")":
            if text != ",":
                yield text

    def _next(self) -> tuple[str, str] | None:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else None

    def _take(self) -> str:
        token = self._next()
        assert token is not None, "the expression ends too early"
        return token[1]

    def _peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at : at + 20]!r} is no PromQL")
        at = found.end()
        if found.lastgroup != "space":
            yield str(found.lastgroup), found.group()


def read(text: str) -> Expression:
    """Read an expression that Prometheus would take; what it would not may be read wrongly."""
    reader = _Reader(text)
    reader.read()
    return Expression(tuple(reader.selectors), frozenset(reader.grouping))
