"""Adapter tags in prompts: `<lora:name:weight>` and `<lora:name:text encoder weight:weight>`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from terroir.inference.errors import PromptTagInvalid

MAX_WEIGHT: Final = 2.0
_OPENING: Final = re.compile(r"<\s*lora\s*:", re.IGNORECASE)
_NUMBER: Final = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_TAG: Final = re.compile(
    r"<lora:(?P<name>[a-z][a-z0-9-]{0,62}(?:@[a-z][a-z0-9-]{0,62})?)"
    rf":(?P<first>{_NUMBER})(?::(?P<second>{_NUMBER}))?>"
)
_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True)
class Tag:
    """One adapter asked for inside a prompt."""

    adapter: str
    """`adapters/{id}` or `adapters/{id}@{alias}`."""
    weight: float
    text_encoder_weight: float


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt without its tags."""

    text: str
    tags: tuple[Tag, ...]


def parse_prompt(prompt: str) -> ParsedPrompt:
    """Take the tags out of a prompt, in order; raises PromptTagInvalid that shows the tag.

    With two numbers the first is the text encoder's, as in A1111; with one, it is both.
    """
    kept: list[str] = []
    tags: list[Tag] = []
    position = 0
    while (opening := _OPENING.search(prompt, position)) is not None:
        match = _TAG.match(prompt, opening.start())
        if match is None:
            raise PromptTagInvalid(
                f"{_shown(prompt, opening.start())} is not a tag: write <lora:name:weight> or "
                "<lora:name:text encoder weight:weight>",
                field="prompt",
            )
        kept.append(prompt[position : match.start()])
        tags.append(_tag(match))
        position = match.end()
    kept.append(prompt[position:])
    return ParsedPrompt(_joined(kept), tuple(tags))


def _tag(match: re.Match[str]) -> Tag:
    first = float(match["first"])
    weight = float(match["second"]) if match["second"] is not None else first
    for value in (first, weight):
        if abs(value) > MAX_WEIGHT:
            raise PromptTagInvalid(
                f"{match[0]} has weight {value:g} outside -{MAX_WEIGHT:g} … {MAX_WEIGHT:g}", field="prompt"
            )
    return Tag(f"adapters/{match['name']}", weight, first)


def _joined(parts: list[str]) -> str:
    """Text around tags, one space where a tag stood; a prompt without tags stays as it is."""
    if len(parts) == 1:
        return parts[0]
    stripped = (part.strip() for part in parts)
    return " ".join(part for part in stripped if part)


def _shown(prompt: str, start: int) -> str:
    end = prompt.find(">", start)
    tag = prompt[start : end + 1] if end >= 0 else prompt[start:]
    return repr(tag if len(tag) <= _SHOWN_CHARACTERS else tag[: _SHOWN_CHARACTERS - 3] + "...")
