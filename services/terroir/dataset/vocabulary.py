"""What the zero-shot tagger may say: label sets for subject, scene, style and detail, and how a caption is built."""

from __future__ import annotations

import itertools
import re
import string
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from terroir.common.errors import InvalidArgument

DRAWN_WORLD: Final = Path(__file__).parent / "drawn_world.yaml"
"""Vocabulary of the drawn world that the tiny base knows."""
_MAX_LABELS: Final = 2000
_ARTICLE: Final = re.compile(r"\b([Aa]) (?=[aeiou])")

NonEmpty = Annotated[str, Field(min_length=1, max_length=200)]


class Slot(BaseModel):
    """One part of a caption and the labels that it is chosen from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["subject", "scene", "style", "detail"]
    phrase: NonEmpty
    parts: dict[str, Annotated[tuple[NonEmpty, ...], Field(min_length=1)]]
    templates: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_places(self.phrase, set(self.parts), "phrase")
        if len(self.labels()) > _MAX_LABELS:
            raise ValueError(f"slot {self.name} has {len(self.labels())} labels, the limit is {_MAX_LABELS}")
        return self

    def labels(self) -> tuple[str, ...]:
        """All combinations of the parts, in the file's order."""
        choices = itertools.product(*self.parts.values())
        return tuple(
            with_article(self.phrase.format(**dict(zip(self.parts, choice, strict=True)))) for choice in choices
        )


class Vocabulary(BaseModel):
    """Slots in the order in which they are chosen, and the caption made of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    caption: NonEmpty
    slots: Annotated[tuple[Slot, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        chosen: set[str] = set()
        for slot in self.slots:
            if slot.name in chosen:
                raise ValueError(f"slot {slot.name} is there twice")
            chosen.add(slot.name)
            for template in slot.templates:
                _check_places(template, chosen, f"a template of slot {slot.name}")
                if slot.name not in _places(template):
                    raise ValueError(f"template {template!r} of slot {slot.name} lacks {{{slot.name}}}")
        _check_places(self.caption, chosen, "caption")
        return self


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary file. Raises InvalidArgument with INVALID_VOCABULARY."""
    try:
        return Vocabulary.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise InvalidArgument(
            f"tagger vocabulary {path} can't be used: {error}; correct it or unset TERROIR_DATASET_TAGGER_VOCABULARY",
            reason="INVALID_VOCABULARY",
        ) from error


def with_article(text: str) -> str:
    """`a orange house` to `an orange house`."""
    return _ARTICLE.sub(r"\1n ", text)


def _places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def _check_places(text: str, known: set[str], where: str) -> None:
    if unknown := _places(text) - known:
        raise ValueError(f"{where} {text!r} names {sorted(unknown)}, known are {sorted(known)}")
