"""The safety stage: the built-in word list, and any other check by its import path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import FailedPrecondition
from terroir.inference.delivery.picture_pool import PicturePool
from terroir.inference.engine.messages import Raster
from terroir.inference.errors import PictureRefused, PromptRefused
from terroir.inference.request.safety import Refusal, Safety, WordList, load_safety_check

DARK, LIGHT = Raster(2, 1, b"\0" * 6), Raster(2, 1, b"\xff" * 6)


class NoDarkPictures:
    """A check of somebody else."""

    def __init__(self, blocked_words: Iterable[str]) -> None:
        self.words = list(blocked_words)

    def check_prompt(self, prompt: str, negative_prompt: str) -> Refusal | None:
        """Pass."""
        return None

    def check_picture(self, raster: Raster) -> Refusal | None:
        """Refuse black."""
        return None if any(raster.data) else Refusal("the picture is black")


@pytest.mark.parametrize(
    ("words", "prompt", "refused"),
    [
        (["gore"], "a scene of GORE at night", True),
        (["gore"], "gorenje, a fridge", False),
        (["gore"], "a scene of ｇｏｒｅ", True),
        (["naïve"], "a nai\u0308ve painting", True),
        (["暴力"], "一幅暴力的画", True),
        (["暴力"], "一幅风景画", False),
        (["bad word"], "a bad word here", True),
        (["c++"], "written in c++ code", True),
        (["", "  "], "anything", False),
        ([], "anything", False),
    ],
)
def test_the_word_list(words: list[str], prompt: str, refused: bool) -> None:
    refusal = WordList(words).check_prompt(prompt, "gore 暴力")
    assert (refusal is not None) is refused
    if refusal is not None:
        assert not any(word in refusal.message for word in words), "the list is the operator's"


@given(st.lists(st.text(max_size=8), max_size=5), st.text(max_size=40))
def test_any_words_and_any_prompt_give_an_answer(words: list[str], prompt: str) -> None:
    WordList(words).check_prompt(prompt, prompt)


def test_words_come_from_the_setting_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("second\n\nthird one\n", encoding="utf-8")
    check = load_safety_check("terroir.inference.request.safety:WordList", ["first"], file)
    for prompt in ("the first", "the second", "a third one"):
        assert check.check_prompt(prompt, "") is not None
    assert check.check_prompt("a fourth", "") is None


@pytest.mark.parametrize(
    "path", ["", "nowhere", "nowhere.at.all:Check", "terroir.inference.request.safety:Nothing", "pathlib:Path"]
)
def test_a_wrong_import_path_is_said_at_start(path: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        load_safety_check(path, [], None)
    assert refused.value.reason == "INVALID_SETTING" and path in str(refused.value)


def test_a_word_file_that_cannot_be_read_is_said_at_start(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="blocked_words_file"):
        load_safety_check("terroir.inference.request.safety:WordList", [], tmp_path / "missing.txt")


def test_another_check_is_plugged_in_by_its_path_and_its_refusals_are_counted() -> None:
    stages: list[str] = []
    check = load_safety_check(f"{__name__}:NoDarkPictures", ["x"], None)
    assert isinstance(check, NoDarkPictures) and check.words == ["x"]
    safety = Safety(check, PicturePool(1), stages.append)
    asyncio.run(safety.allow_picture(LIGHT))
    with pytest.raises(PictureRefused, match="black"):
        asyncio.run(safety.allow_picture(DARK))
    with pytest.raises(PromptRefused):
        asyncio.run(Safety(WordList(["gore"]), PicturePool(1), stages.append).allow_prompt("gore", ""))
    assert stages == ["picture", "prompt"]
