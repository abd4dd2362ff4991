"""Texts are encoded once for each thing that the text encoders wear, and no more of them are kept than agreed."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from terroir.inference.engine.pipeline import prompts
from terroir.inference.engine.pipeline.conditioning import Conditioning
from terroir.inference.engine.pipeline.prompts import Prompts

TOKENS, CHANNELS, POOLED = 3, 2, 4


@dataclass
class Encoders:
    """A pipeline whose embeddings tell which call made them."""

    zeros: bool = True
    encoded: list[str] = field(default_factory=list)
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.config = SimpleNamespace(force_zeros_for_empty_prompt=self.zeros)
        self.text_encoder_2 = SimpleNamespace(config=SimpleNamespace(projection_dim=POOLED))
        self.tokenizer, self.tokenizer_2 = Words(5), Words(3)

    def encode_prompt(self, text: str, **options: Any) -> tuple[Tensor, None, Tensor, None]:
        assert options["do_classifier_free_guidance"] is False
        self.encoded.append(text)
        mark = float(len(self.encoded))
        return torch.full((1, TOKENS, CHANNELS), mark), None, torch.full((1, POOLED), mark), None

    def _get_add_time_ids(
        self, original: tuple[int, int], crop: tuple[int, int], target: tuple[int, int], dtype: torch.dtype, _: int
    ) -> Tensor:
        return torch.tensor([[*original, *crop, *target]], dtype=dtype)


@dataclass
class Words:
    """A token a word, and one at each end."""

    model_max_length: int

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=["<", *text.split(), ">"])


def condition(
    found: Prompts, prompt: str, negative: str | None = None, *, wearing: object = (), **options: int
) -> Conditioning:
    return found.condition(prompt, negative, **{"count": 1, "width": 64, "height": 48, **options}, wearing=wearing)


@given(st.lists(st.tuples(st.sampled_from(("a cat", "a dog", "")), st.sampled_from(((), ("x", 1.0), ("x", 0.5))))))
def test_equal_texts_are_encoded_once_for_each_thing_worn(calls: list[tuple[str, object]]) -> None:
    encoders = Encoders()
    found = Prompts(encoders, sdxl=False)
    answers: dict[tuple[str, object], Tensor] = {}
    for text, wearing in calls:
        made = condition(found, text, wearing=wearing).embeddings
        assert torch.equal(made, answers.setdefault((text, wearing), made))
    assert len(encoders.encoded) == len(answers) == len({float(made[0, 0, 0]) for made in answers.values()})


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(2, 5))
def test_the_longest_unused_text_is_forgotten_first(texts: list[int], kept: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "_KEPT", kept)
        encoders = Encoders()
        found = Prompts(encoders, sdxl=False)
        remembered: list[str] = []
        for text in map(str, texts):
            before = len(encoders.encoded)
            condition(found, text)
            assert (len(encoders.encoded) == before) == (text in remembered)
            remembered = [*(other for other in remembered if other != text), text][-kept:]
        assert len(found._kept) <= kept


@given(count=st.integers(1, 4), sdxl=st.booleans())
def test_rows_without_the_prompt_come_first_and_as_many_as_with_it(count: int, sdxl: bool) -> None:
    made = condition(Prompts(Encoders(), sdxl=sdxl), "a cat", "grey", count=count)
    with_prompt, without = made.embeddings[count:, 0, 0], made.embeddings[:count, 0, 0]
    assert made.rows == 2 * count
    assert with_prompt.tolist() == [1.0] * count, "the prompt was encoded first"
    assert without.tolist() == [2.0] * count
    if sdxl:
        assert made.pooled is not None
        assert made.time_ids is not None
        assert made.pooled[:, 0].tolist() == [2.0] * count + [1.0] * count
        assert made.time_ids.tolist() == [[48, 64, 0, 0, 48, 64]] * (2 * count), "height first, nothing cropped"
    else:
        assert made.pooled is made.time_ids is None


@pytest.mark.parametrize(
    ("sdxl", "zeros", "negative", "encoded"),
    [
        (True, True, "", ["a cat"]),
        (True, False, "", ["a cat", ""]),
        (True, True, "grey", ["a cat", "grey"]),
        (False, True, "", ["a cat", ""]),
        (True, True, None, ["a cat"]),
    ],
)
def test_only_sdxl_takes_zeros_for_an_empty_negative_prompt_and_only_if_its_base_says_so(
    sdxl: bool, zeros: bool, negative: str | None, encoded: list[str]
) -> None:
    encoders = Encoders(zeros)
    made = condition(Prompts(encoders, sdxl=sdxl), "a cat", negative)
    assert encoders.encoded == encoded
    assert made.rows == (1 if negative is None else 2)
    if negative == "" and len(encoded) == 1:
        assert made.pooled is not None
        assert not made.embeddings[0].any()
        assert not made.pooled[0].any()
    assert made.embeddings[-1].all()


@pytest.mark.parametrize(
    ("text", "sdxl", "cut"),
    [("a b c", False, False), ("a b c d", False, True), ("a", True, False), ("a b", True, True), ("", True, False)],
)
def test_a_text_is_cut_where_either_tokenizer_cuts_it(text: str, sdxl: bool, cut: bool) -> None:
    assert Prompts(Encoders(), sdxl=sdxl).is_cut(text) is cut


rows = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(rows, st.booleans(), st.integers(1, 5))
def test_joined_rows_keep_their_order_and_padding_comes_last(counts: list[int], sdxl: bool, padding: int) -> None:
    found = Prompts(Encoders(), sdxl=sdxl)
    parts = [condition(found, str(number), count=count) for number, count in enumerate(counts)]
    assert len({part.key for part in parts}) == 1
    joined = Conditioning.cat(parts)
    expected = [float(number + 1) for number, count in enumerate(counts) for _ in range(count)]
    longer = joined.padded(padding)
    assert joined.rows == len(expected)
    assert longer.rows == len(expected) + padding
    for made, sizes in ((joined, len(expected)), (longer, len(expected) + padding)):
        arguments = made.arguments()
        added = arguments.get("added_cond_kwargs", {})
        assert bool(added) == sdxl
        for tensor in (arguments["encoder_hidden_states"], *added.values()):
            assert len(tensor) == sizes
        assert made.embeddings[: len(expected), 0, 0].tolist() == expected


def test_rows_of_different_families_never_share_a_call() -> None:
    keys = {condition(Prompts(Encoders(), sdxl=sdxl), "a").key for sdxl in (False, True)}
    assert len(keys) == 2
