"""Adapter tags in prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.inference.errors import PromptTagInvalid
from terroir.inference.request.prompt import Tag, parse_prompt

names = st.from_regex(r"[a-z][a-z0-9-]{0,20}(@[a-z]{1,8})?", fullmatch=True)
weights = st.floats(-2, 2).map(lambda value: round(value, 3))
words = st.text(st.characters(exclude_characters="<", exclude_categories=("Cs", "Cc")), max_size=30)


@given(st.lists(st.tuples(words, names, weights, st.none() | weights)), words)
def test_every_tag_is_found_in_order_and_no_text_is_lost(
    parts: list[tuple[str, str, float, float | None]], tail: str
) -> None:
    tags = [f"<lora:{n}:{w}>" if t is None else f"<lora:{n}:{t}:{w}>" for _, n, w, t in parts]
    prompt = "".join(text + tag for (text, *_), tag in zip(parts, tags, strict=True)) + tail
    parsed = parse_prompt(prompt)
    assert parsed.tags == tuple(Tag(f"adapters/{n}", w, w if t is None else t) for _, n, w, t in parts)
    assert parsed.text.split() == " ".join([*(text for text, *_ in parts), tail]).split()


@pytest.mark.parametrize(
    ("tag", "text_encoder", "denoiser"),
    [
        ("<lora:a>", 1.0, 1.0),
        ("<lora:a:0.5>", 0.5, 0.5),
        ("<lora:a:0.5:0.7>", 0.5, 0.7),
        ("<lora:a:te=0.5>", 0.5, 0.5),
        ("<lora:a:unet=0.7>", 1.0, 0.7),
        ("<lora:a:unet=0.7:te=0.5>", 0.5, 0.7),
        ("<lora:a:0.5:unet=0.7>", 0.5, 0.7),
        ("<lora:a: -0.5 : unet = 0 >", -0.5, 0.0),
    ],
)
def test_weights_mean_what_they_mean_in_a1111(tag: str, text_encoder: float, denoiser: float) -> None:
    """The first is the text encoder's; the denoiser follows it; without any, both are 1."""
    assert parse_prompt(tag).tags == (Tag("adapters/a", denoiser, text_encoder),)


def test_an_unknown_part_is_answered_with_the_nearest() -> None:
    with pytest.raises(PromptTagInvalid, match="unet"):
        parse_prompt("<lora:a:unett=1>")


@given(st.text(st.characters(exclude_characters="<")))
def test_a_prompt_without_tags_is_untouched(prompt: str) -> None:
    assert parse_prompt(prompt).text == prompt


@pytest.mark.parametrize(
    "tag",
    [
        "<lora:jiangnan:>", "<lora:jiangnan:x>", "<lora:a:te=1:te=2>", "<lora:a:1:te=2>", "<lora:a:dyn=4>", "<lora:>",
        "<lora:a:unit=1>", "<lora:a:unet=>", "<lora:a:te=1e400>", "<lora:a:=1>", "<lora::1>", "<lora:Jiangnan:1>",
        "<lora:a:1:2:3>", "<lora:a:nan>", "<lora:a:inf>", "<lora:a:1e9>", "<lora:a:2.5>", "<lora:a:0.5:-2.1>",
        "<lora:../etc:1>", "<LORA:a:1>", "< lora:a:1>", "<lora:a:1",
    ],
)  # fmt: skip
def test_a_malformed_tag_is_an_error_that_shows_it(tag: str) -> None:
    with pytest.raises(PromptTagInvalid) as refused:
        parse_prompt(f"a cat {tag}")
    assert tag in str(refused.value)
    assert refused.value.field == "prompt"


@given(st.text())
def test_any_text_parses_or_is_refused_with_the_reason(prompt: str) -> None:
    try:
        parse_prompt(prompt)
    except PromptTagInvalid as error:
        assert error.reason == "PROMPT_TAG_INVALID"
