"""Adapter tags in prompts, with A1111's meaning: `<lora:name:text encoder weight:weight>` and `te=`, `unet=`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from terroir.common.validation import did_you_mean
from terroir.inference.errors import PromptTagInvalid

MAX_WEIGHT: Final = 2.0
_OPENING: Final = re.compile(r"<\s*lora\s*:", re.IGNORECASE)
_TAG: Final = re.compile(r"<lora:([^<>]*)>")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}(?:@[a-z][a-z0-9-]{0,62})?")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")
_NAMED: Final = ("te", "unet")
_SHOWN_CHARACTERS: Final = 60
_FORMS: Final = "<lora:name:weight>, <lora:name:text encoder weight:weight> or <lora:name:te=weight:unet=weight>"


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

    As in A1111 the first number is the text encoder's, and the denoiser's too unless it has one of its own; without a
    number both are 1.
    """
    kept: list[str] = []
    tags: list[Tag] = []
    position = 0
    while (opening := _OPENING.search(prompt, position)) is not None:
        match = _TAG.match(prompt, opening.start())
        if match is None:
            raise PromptTagInvalid(f"{_shown(prompt, opening.start())} is not a tag: write {_FORMS}", field="prompt")
        kept.append(prompt[position : match.start()])
        tags.append(_tag(match[0], match[1].split(":")))
        position = match.end()
    kept.append(prompt[position:])
    return ParsedPrompt(_joined(kept), tuple(tags))


def _tag(tag: str, parts: list[str]) -> Tag:
    name, weights = parts[0], dict[str, float]()
    if not _NAME.fullmatch(name):
        raise PromptTagInvalid(f"{_cut(tag)} names no adapter: write {_FORMS}", field="prompt")
    for position, part in enumerate(parts[1:]):
        key, equals, number = part.rpartition("=")
        key = key.strip() if equals else _NAMED[position] if position < len(_NAMED) else ""
        if equals and key not in _NAMED:
            raise PromptTagInvalid(
                f"{_cut(tag)} has an unknown part {key[:20]!r}{did_you_mean(key, _NAMED)}: write {_FORMS}",
                field="prompt",
            )
        if not key or key in weights:
            raise PromptTagInvalid(f"{_cut(tag)} has too many weights: write {_FORMS}", field="prompt")
        weights[key] = _weight(tag, number)
    text_encoder = weights.get("te", 1.0)
    return Tag(f"adapters/{name}", weights.get("unet", text_encoder), text_encoder)


def _weight(tag: str, number: str) -> float:
    if not _NUMBER.fullmatch(number.strip()):
        raise PromptTagInvalid(f"{_cut(tag)} has a weight that is no number: write {_FORMS}", field="prompt")
    value = float(number)
    if not math.isfinite(value) or abs(value) > MAX_WEIGHT:
        raise PromptTagInvalid(
            f"{_cut(tag)} has weight {value:g} outside -{MAX_WEIGHT:g} … {MAX_WEIGHT:g}", field="prompt"
        )
    return value


def _joined(parts: list[str]) -> str:
    """Text around tags, one space where a tag stood; a prompt without tags stays as it is."""
    if len(parts) == 1:
        return parts[0]
    stripped = (part.strip() for part in parts)
    return " ".join(part for part in stripped if part)


def _shown(prompt: str, start: int) -> str:
    end = prompt.find(">", start)
    return _cut(prompt[start : end + 1] if end >= 0 else prompt[start:])


def _cut(tag: str) -> str:
    return repr(tag if len(tag) <= _SHOWN_CHARACTERS else tag[: _SHOWN_CHARACTERS - 3] + "...")
