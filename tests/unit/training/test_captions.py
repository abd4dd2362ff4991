"""Captions: the trigger word, orders of their parts, and what happens without one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from data_kit import config
from hypothesis import given
from hypothesis import strategies as st
from training_kit import Bench, MemorySinks, flat, pictures, png

from terroir.training.engine.cache import MemoryArrayCache
from terroir.training.engine.data.captions import CaptionTable, shuffled, with_trigger
from terroir.training.engine.ports import Arrays, Picture, TrainRun
from terroir.training.engine.train import train
from terroir.training.errors import CaptionMissing

PARTS = st.lists(st.text("abcxyz ", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=6)


def captioned(*captions: str) -> list[Picture]:
    return [Picture(f"{i}.png", png(i), caption) for i, caption in enumerate(captions)]


def table(*captions: str, trigger: str = "", prior: tuple[str, ...] = (), **keys: Any) -> CaptionTable:
    return CaptionTable.of(config(**keys), trigger, captioned(*captions), captioned(*prior))


def texts_of(found: CaptionTable, picture: int) -> list[str]:
    return [found.texts[row] for row in found.rows[picture]]


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [("a house", "ink style", "ink style, a house"), ("An INK style house", "ink style", "An INK style house"),
     ("", "ink style", "ink style"), (" a house ", "", "a house")],
)  # fmt: skip
def test_the_trigger_word_is_in_every_caption_once(caption: str, trigger: str, expected: str) -> None:
    assert with_trigger(caption, trigger) == expected


@given(PARTS, st.integers(0, 7), st.integers(1, 8))
def test_orders_keep_every_part_and_the_first_ones_in_place(parts: list[str], keep: int, count: int) -> None:
    caption = ", ".join(parts)
    orders = shuffled(caption, keep, count)
    assert orders[0] == caption and len(set(orders)) == len(orders) and orders == shuffled(caption, keep, count)
    free = parts[keep:]
    possible = math.factorial(len(free)) // math.prod(math.factorial(n) for n in Counter(free).values())
    assert len(orders) == min(count, possible)
    for order in orders:
        found = order.split(", ")
        assert found[:keep] == parts[:keep] and Counter(found) == Counter(parts)


def test_captions_are_whole_unless_shuffling_is_asked_for() -> None:
    assert texts_of(table("a, b, c, d"), 0) == ["a, b, c, d"]
    shuffling = table("a, b, c, d", shuffle_caption=True, augment_variants=3)
    assert len(texts_of(shuffling, 0)) == 3 and all(text.startswith("a, ") for text in texts_of(shuffling, 0))
    loose = table("a, b, c, d", shuffle_caption=True, augment_variants=24, keep_tokens=0)
    assert len({text[0] for text in texts_of(loose, 0)}) == 4


def test_the_trigger_word_is_the_first_part_and_stays_there() -> None:
    found = table("a, b, c", trigger="zk", shuffle_caption=True, augment_variants=6)
    assert {text.split(", ")[0] for text in texts_of(found, 0)} == {"zk"} and len(texts_of(found, 0)) == 6


def test_equal_captions_share_a_text_and_the_empty_one_is_the_first() -> None:
    found = table("a", "b", "a")
    assert found.texts == ("", "a", "b") and found.rows == ((1,), (2,), (1,))


def test_pictures_without_a_caption_are_named() -> None:
    with pytest.raises(CaptionMissing, match=r"2 pictures have no caption: 1\.png, 2\.png;") as error:
        table("a", " ", "")
    assert error.value.reason == "CAPTION_MISSING"
    with pytest.raises(CaptionMissing, match=r"8 pictures .* 4\.png and 3 more"):
        table(*[""] * 8)


def test_a_trigger_word_or_no_captions_at_all_are_ways_out() -> None:
    assert table("", trigger="zk").texts == ("", "zk")
    assert table("", caption_dropout=1).rows == ((0,),)


def test_regularisation_pictures_get_no_trigger_word_and_need_a_caption() -> None:
    found = table("a", trigger="zk", prior=("a street",))
    assert found.texts == ("", "zk, a", "a street")
    with pytest.raises(CaptionMissing):
        table("a", trigger="zk", prior=("",))


def test_a_caption_less_picture_is_found_before_anything_is_encoded_or_loaded(small: Bench, tmp_path: Any) -> None:
    class Untouched(MemoryArrayCache):
        def get(self, key: str) -> Arrays | None:
            raise AssertionError(key)

    with pytest.raises(CaptionMissing, match=r"1\.png"):
        train(TrainRun(config(), tmp_path, {}), captioned("a", ""), MemorySinks(), Untouched())
    with pytest.raises(CaptionMissing):
        small.run(data=captioned("a", ""))
    small.run(data=captioned("a", ""), trigger_word="zk", max_train_steps=1)
    small.run(data=captioned("a", ""), caption_dropout=1, max_train_steps=1)


LONG = ["a red house, a tree, rain, a river, dusk"]


def learned(small: Bench, **keys: Any) -> np.ndarray:
    return flat(small.run(data=captioned(*LONG), max_train_steps=2, **{"caption_dropout": 0, **keys}).adapter)


@pytest.mark.parametrize(
    ("usual", "change"),
    [
        ({}, {"shuffle_caption": True}),
        ({"shuffle_caption": True}, {"keep_tokens": 3}),
        ({"shuffle_caption": True}, {"augment_variants": 24}),
        ({}, {"trigger_word": "zk"}),
        ({}, {"caption_dropout": 1.0}),
        ({}, {"clip_skip": 2}),
    ],
    ids=str,
)
def test_caption_keys_change_what_is_learned(small: Bench, usual: Mapping[str, Any], change: dict[str, Any]) -> None:
    assert not np.allclose(learned(small, **usual), learned(small, **usual, **change), atol=1e-7)


def test_orders_are_encoded_once_and_shared_by_runs_of_any_seed(sd_dir: Any) -> None:
    class Counting(MemoryArrayCache):
        texts = 0

        def put(self, key: str, arrays: Arrays) -> None:
            self.texts += key.startswith("texts/")
            super().put(key, arrays)

    cache = Counting()
    bench = Bench(sd_dir, cache)
    bench.run(data=captioned(*LONG), shuffle_caption=True, augment_variants=5, max_train_steps=1)
    assert cache.texts == 6  # the empty caption too
    bench.run(data=captioned(*LONG), shuffle_caption=True, augment_variants=5, max_train_steps=1, seed=77)
    assert cache.texts == 6
    bench.run(data=pictures(1), max_train_steps=1)
    assert cache.texts == 7
