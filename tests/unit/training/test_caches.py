"""Latents and text states are kept by content: shared by all runs, missed by any change, never wrong."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_kit import as_file, config, noise_image
from diffusers import AutoencoderKL
from PIL import Image
from small_bases import small_sd
from training_kit import Bench, MemorySinks, flat, pictures

from terroir.common.base_digest import component_digests
from terroir.common.clock import FixedClock
from terroir.store.local import LocalStore
from terroir.store.obstore_driver import MemoryStore
from terroir.training.engine.cache import MemoryArrayCache, StoreArrayCache
from terroir.training.engine.data.ahead import ahead
from terroir.training.engine.data.augmentation import Recipe
from terroir.training.engine.data.dataset import encode
from terroir.training.engine.data.latents import EncodedPicture, PictureEncoder
from terroir.training.engine.data.texts import CaptionEncoder, TextTable
from terroir.training.engine.families.loading import load_family
from terroir.training.engine.ports import ArrayCache, Arrays, Picture, Stopped, TrainRun
from terroir.training.engine.train import train
from terroir.training.errors import LatentsNotFinite, PictureUnreadable


@dataclass
class Counting:
    """Hands through to a cache and counts what is written."""

    inner: ArrayCache = field(default_factory=MemoryArrayCache)
    puts: list[str] = field(default_factory=list)

    def get(self, key: str) -> Arrays | None:
        return self.inner.get(key)

    def put(self, key: str, arrays: Arrays) -> None:
        self.puts.append(key)
        self.inner.put(key, arrays)

    def new(self, act: Callable[[], object]) -> int:
        """How many entries an act writes."""
        before = len(self.puts)
        act()
        return len(self.puts) - before


def edited(picture: Picture) -> Picture:
    """One pixel by one shade."""
    image = Image.open(io.BytesIO(picture.data))
    red, *rest = image.getpixel((20, 20))  # type: ignore[misc]  # RGB
    image.putpixel((20, 20), ((red + 1) % 256, *rest))
    return replace(picture, data=as_file(image))


def test_an_edited_pixel_and_another_base_are_encoded_anew_and_equal_content_is_not(
    sd_dir: Path, tmp_path: Path
) -> None:
    cache, data = Counting(), pictures(2)
    usual = {"max_train_steps": 1, "resolution": 40}

    def run(base: Path = sd_dir, data: list[Picture] = data, **keys: Any) -> int:
        return cache.new(lambda: Bench(base, cache).run(data=data, **{**usual, **keys}))

    assert run() == 2 + 3  # two pictures, two captions and the empty one
    assert run(data=data[::-1], seed=5, lora_rank=3, batch_size=1) == 0
    assert (
        run(data=[replace(picture, data=as_file(Image.open(io.BytesIO(picture.data)), "BMP")) for picture in data]) == 0
    )
    assert run(data=[edited(data[0]), data[1]]) == 1
    assert run(data=[replace(data[0], caption="another"), data[1]]) == 1
    assert run(resolution=32) == 2
    assert run(clip_skip=2) == 3
    assert run(base=small_sd(tmp_path / "other", seed=1)) == 5


def test_two_text_encoders_give_both_states_through_the_cache(sdxl_dir: Path) -> None:
    family = load_family(sdxl_dir, config(), "cpu")
    run = TrainRun(config(), sdxl_dir, component_digests(sdxl_dir))
    cache = Counting(StoreArrayCache(MemoryStore()))
    texts = ["", "a red house", "a tower"]

    def encoded(run: TrainRun = run) -> TextTable:
        return CaptionEncoder(family, run, cache).encode(texts, lambda: None)

    first, again = encoded(), encoded()
    assert len(cache.puts) == 3 and first.states is not None and again.states is not None
    direct = family.encode_texts(family.tokenize(texts))
    assert direct.pooled is not None and again.states.pooled is not None
    for table in (first.states, again.states):
        assert table.pooled is not None
        assert torch.allclose(table.states, direct.states, atol=1e-5)
        assert torch.allclose(table.pooled, direct.pooled, atol=1e-5)
    assert torch.equal(first.states.states, again.states.states)
    # Either encoder's weights are part of the key.
    for component in ("text_encoder", "text_encoder_2"):
        other = replace(run, component_digests={**run.component_digests, component: "0" * 64})
        assert cache.new(lambda other=other: encoded(other)) == 3  # type: ignore[misc]  # bound now


def test_texts_are_only_tokenised_where_the_encoders_train(sd_dir: Path) -> None:
    keys = config(text_encoder_lr=1e-4)
    family, cache = load_family(sd_dir, keys, "cpu"), Counting()
    run = TrainRun(keys, sd_dir, component_digests(sd_dir))
    table = CaptionEncoder(family, run, cache).encode(["", "a red house"], lambda: None)
    assert table.states is None and table.tokens is not None and table.tokens.shape == (2, 1, 32) and not cache.puts


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_what_is_cached_changes_no_bit_of_what_is_learned(sd_dir: Path, kept: int) -> None:
    keys = {"max_train_steps": 2, "horizontal_flip": True, "augment_color_jitter": 0.2, "augment_variants": 2}
    whole = MemoryArrayCache()
    expected = flat(Bench(sd_dir, whole).run(**keys).adapter)
    some = MemoryArrayCache()
    for number, (key, arrays) in enumerate(whole._arrays.items()):
        if number % 4 < kept:
            some.put(key, arrays)
    assert (flat(Bench(sd_dir, some).run(**keys).adapter) == expected).all()


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | LocalStore:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "store")


ARRAYS = {"mean": np.arange(6, dtype=np.float32).reshape(2, 3), "deviation": np.ones((1, 2), np.float32)}


def test_arrays_come_back_as_they_were(store: Any) -> None:
    for cache in (MemoryArrayCache(), StoreArrayCache(store)):
        assert cache.get("latents/x") is None
        cache.put("latents/x", ARRAYS)
        cache.put("latents/x", ARRAYS)  # another run encoded the same content
        found = cache.get("latents/x")
        assert found is not None and found.keys() == ARRAYS.keys()
        assert all((found[name] == ARRAYS[name]).all() and found[name].dtype == np.float32 for name in ARRAYS)


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "other"])
def test_a_damaged_entry_is_missing_and_written_anew(store: Any, damage: str) -> None:
    cache = StoreArrayCache(store)
    cache.put("latents/x", ARRAYS)
    entry = store.get("cache/latents/x")
    broken = bytearray(entry)
    broken[-3] ^= 1  # among the numbers, where safetensors would not notice
    spoiled = {"bit": bytes(broken), "cut": entry[:-4], "empty": b"", "other": b"something else"}[damage]
    store.put("cache/latents/x", spoiled)
    assert cache.get("latents/x") is None
    cache.put("latents/x", ARRAYS)
    assert store.get("cache/latents/x") == entry and cache.get("latents/x") is not None


def test_a_run_with_damaged_entries_learns_the_same(sd_dir: Path) -> None:
    store = MemoryStore()
    expected = flat(Bench(sd_dir, StoreArrayCache(store)).run(max_train_steps=2).adapter)
    for key in list(store.list("cache")):
        broken = bytearray(store.get(key))
        broken[len(broken) // 2] ^= 0x40
        store.put(key, bytes(broken))
    assert (flat(Bench(sd_dir, StoreArrayCache(store)).run(max_train_steps=2).adapter) == expected).all()


# Overflow


class Overflowing(torch.nn.Module):
    """An autoencoder that overflows on bright pictures in half precision, as SDXL's does, or always."""

    def __init__(self, inner: AutoencoderKL, always: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.always = always
        self.passes: list[torch.dtype] = []

    @property
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    @property
    def config(self) -> Any:
        return self.inner.config

    def encode(self, pixels: torch.Tensor) -> Any:
        self.passes.append(pixels.dtype)
        bright = pixels.mean() > 0.5 and (self.always or pixels.dtype != torch.float32)
        return self.inner.encode(pixels * float("nan") if bright else pixels)


def bright(value: int) -> Picture:
    return Picture(f"{value}.png", as_file(Image.new("RGB", (32, 32), (value,) * 3)), "a house")


def encoder(base: Path, vae: Any, cache: ArrayCache) -> Callable[[list[Picture]], list[EncodedPicture]]:
    run = TrainRun(config(resolution=32), base, component_digests(base))
    made = PictureEncoder(vae, run, cache)
    return lambda data: list(made.encode([(one, Recipe.nothing()) for one in data], lambda: None))


def test_a_picture_that_overflows_in_half_precision_is_encoded_in_single_once(sd_dir: Path) -> None:
    cache = Counting()
    vae = Overflowing(load_family(sd_dir, config(), "cpu").vae.half())
    found = encoder(sd_dir, vae, cache)([bright(20), bright(250)])
    assert vae.passes == [torch.float16, torch.float16, torch.float32] and vae.dtype == torch.float16
    assert all(picture.examples[0].posterior.isfinite().all() for picture in found) and len(cache.puts) == 2


def test_a_picture_that_overflows_in_single_too_is_named_and_never_cached(sd_dir: Path) -> None:
    cache = Counting()
    vae = Overflowing(load_family(sd_dir, config(), "cpu").vae, always=True)
    with pytest.raises(LatentsNotFinite, match=r"250\.png") as error:
        encoder(sd_dir, vae, cache)([bright(20), bright(250)])
    assert error.value.reason == "LATENTS_NOT_FINITE" and len(cache.puts) == 1
    assert vae.passes == [torch.float32, torch.float32]  # the same again would give the same


# Progress and order of work


def test_progress_is_told_while_encoding_at_least_twice_a_second(sd_dir: Path) -> None:
    class Ticking(FixedClock):
        def monotonic(self) -> float:
            self.advance(0.3)  # each look at the clock, as if every encoding took a while
            return super().monotonic()

    sinks = MemorySinks()
    run = TrainRun(config(resolution=32, max_train_steps=1, horizontal_flip=True), sd_dir, component_digests(sd_dir))
    train(run, pictures(4), sinks, MemoryArrayCache(), Ticking())
    told = [(p.encoded, p.to_encode) for p in sinks.progresses if p.phase == "caching" and p.encoded]
    assert told[-1][0] >= 12 and {total for _, total in told} == {5 + 8} and len(told) > 5
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(p.step == 0 for p in sinks.progresses if p.phase == "caching")  # these are no steps


def test_a_run_can_be_stopped_while_it_encodes(sd_dir: Path) -> None:
    class Stopping(MemorySinks):
        def stop_requested(self) -> bool:
            return True

    cache = Counting()
    with pytest.raises(Stopped, match="step 0"):
        Bench(sd_dir, cache).run(Stopping(), data=pictures(6))
    assert 0 < len(cache.puts) < 6


def test_every_encoding_is_counted_and_the_last_count_is_the_total(sd_dir: Path) -> None:
    keys = config(resolution=32, augment_crop=0.2, augment_variants=2)
    run = TrainRun(keys, sd_dir, component_digests(sd_dir), threads=3)
    counts: list[tuple[int, int]] = []
    family = load_family(sd_dir, keys, "cpu")
    encode(run, family, pictures(3), pictures(1), MemoryArrayCache(), lambda done, total: counts.append((done, total)))
    assert counts == [(i + 1, 4 + 3 * 2 + 1) for i in range(11)]


def test_threads_change_nothing(sd_dir: Path) -> None:
    data = [Picture(f"{i}.png", as_file(noise_image(i, (30 + i, 40))), f"caption {i}") for i in range(7)]
    keys = config(resolution=32, augment_color_jitter=0.3, augment_variants=2)

    def digest(threads: int) -> str:
        run = TrainRun(keys, sd_dir, component_digests(sd_dir), threads=threads)
        found = encode(run, load_family(sd_dir, keys, "cpu"), data, (), MemoryArrayCache(), lambda *_: None)
        tensors = [example.posterior for picture in found.pictures for example in picture.examples]
        return hashlib.sha256(torch.stack(tensors).numpy().tobytes()).hexdigest()

    assert digest(1) == digest(4)


def test_work_ahead_keeps_the_order_the_bound_and_the_place_of_an_error() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            started.append(number)
        if number == 5:
            raise PictureUnreadable("5")
        return number * number

    results = ahead(work, range(9), 2)
    for number in range(5):
        assert next(results) == number * number
        assert max(started) <= number + 2
    with pytest.raises(PictureUnreadable):
        next(results)
