"""The check of prompts and pictures before delivery: a stage that an operator exchanges by its import path."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from terroir.common.errors import FailedPrecondition
from terroir.common.tracing import span
from terroir.inference.delivery.picture_pool import PicturePool
from terroir.inference.engine.messages import Raster
from terroir.inference.errors import PictureRefused, PromptRefused


@dataclass(frozen=True)
class Refusal:
    """Why something is not drawn or not delivered; shown to the caller."""

    message: str


class SafetyCheck(Protocol):
    """Both methods may take long and are called off the event loop, by several threads."""

    def check_prompt(self, prompt: str, negative_prompt: str) -> Refusal | None:
        """Judge what is asked for, the region's part included, before anything is drawn."""
        ...

    def check_picture(self, raster: Raster) -> Refusal | None:
        """Judge a finished picture before it is encoded."""
        ...


class SafetyCheckFactory(Protocol):
    """What an import path must name; it reads settings of its own from the environment."""

    def __call__(self, blocked_words: Iterable[str]) -> SafetyCheck:
        """Called once, at start."""
        ...


class WordList:
    """The built-in check: prompts that contain a blocked word, whatever its case, width or accents' encoding.

    Words of scripts that put spaces between words match whole words; in others (Chinese, Japanese, Thai) anywhere.
    Negative prompts may name what is blocked: they keep it away. Pictures all pass.
    """

    def __init__(self, blocked_words: Iterable[str]) -> None:
        words = sorted({_normal(word).strip() for word in blocked_words} - {""})
        self._pattern = re.compile("|".join(_matching(word) for word in words)) if words else None

    def check_prompt(self, prompt: str, _negative_prompt: str) -> Refusal | None:
        """Refuse without naming the word: the list is the operator's."""
        if self._pattern is None or not self._pattern.search(_normal(prompt)):
            return None
        return Refusal("the prompt asks for something that this server does not draw; ask for something else")

    def check_picture(self, _raster: Raster) -> Refusal | None:
        """Pass."""
        return None


class Safety:
    """The check as a stage: off the event loop, counted, its refusals as errors."""

    def __init__(self, check: SafetyCheck, pool: PicturePool, refused: Callable[[str], None]) -> None:
        """`refused` hears the stage of each refusal, `prompt` or `picture`."""
        self._check, self._pool, self._refused = check, pool, refused

    async def allow_prompt(self, prompt: str, negative_prompt: str) -> None:
        """Raise PromptRefused."""
        with span("check prompt"):
            refusal = await self._pool.run(self._check.check_prompt, prompt, negative_prompt)
        if refusal is not None:
            self._refused("prompt")
            raise PromptRefused(refusal.message, field="prompt")

    async def allow_picture(self, raster: Raster) -> None:
        """Raise PictureRefused."""
        with span("check picture"):
            refusal = await self._pool.run(self._check.check_picture, raster)
        if refusal is not None:
            self._refused("picture")
            raise PictureRefused(refusal.message)


def load_safety_check(path: str, words: Iterable[str], file: Path | None) -> SafetyCheck:
    """The check behind `module:factory`, given the words of both settings.

    FailedPrecondition (INVALID_SETTING) says what is wrong with the settings.
    """
    module, _, name = path.partition(":")
    try:
        factory: SafetyCheckFactory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise _invalid(
            f"safety_check {path!r} can't be imported ({error}); write it as package.module:Class"
        ) from error
    blocked = list(words)
    if file is not None:
        try:
            blocked += file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise _invalid(f"blocked_words_file {file} can't be read: {error}") from error
    try:
        check = factory(blocked)
    except Exception as error:  # somebody else's code; whatever it raises, the setting is what the operator can mend
        raise _invalid(f"safety_check {path!r} can't be made: {type(error).__name__}: {error}") from error
    for method in ("check_prompt", "check_picture"):
        if not callable(getattr(check, method, None)):
            raise _invalid(f"safety_check {path!r} has no {method}; see terroir.inference.request.safety.SafetyCheck")
    return check


def _invalid(message: str) -> FailedPrecondition:
    return FailedPrecondition(message, reason="INVALID_SETTING")


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _matching(word: str) -> str:
    spaced = all(ord(letter) < 0x0E00 for letter in word)
    return rf"(?<!\w){re.escape(word)}(?!\w)" if spaced else re.escape(word)
