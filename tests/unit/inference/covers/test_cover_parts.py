"""Small parts of covers: slots, memory, the choice of variants, ladders as values."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.sticky import takes_canary
from terroir.inference.covers.choosing import diverse
from terroir.inference.covers.ladder import Dress, Ladder, Rung, RungKind, Superseded, Trial
from terroir.inference.covers.looks import Look, Worn
from terroir.inference.covers.memory import ENTRY_BYTES, ByteCache
from terroir.inference.covers.slots import Slots
from terroir.inference.covers.units import Unit
from tests.unit.inference.covers.cover_kit import SHAPE, run

WORN = st.builds(
    Worn,
    st.sampled_from(["adapters/a/versions/1", "adapters/b/versions/2"]),
    st.text("ab", min_size=2, max_size=2),
    st.floats(-2, 2),
)
LOOKS = st.builds(
    Look, st.sampled_from(["x", "y"]), st.lists(WORN, max_size=3).map(tuple), st.text(max_size=5), st.text(max_size=5)
)


@given(LOOKS, LOOKS)
def test_looks_share_a_digest_exactly_when_they_draw_alike(one: Look, other: Look) -> None:
    def drawn(look: Look) -> object:
        return (
            look.base_digest,
            [(worn.file_digest, worn.weight) for worn in look.adapters],
            look.prompt_prefix,
            look.negative_prompt,
        )

    assert (one.digest == other.digest) == (drawn(one) == drawn(other) and repr(drawn(one)) == repr(drawn(other)))
    assert Look.from_body(one.to_body()) == one


@given(LOOKS, st.lists(st.tuples(LOOKS, st.floats(0, 1e9), st.floats(0, 1e9)), max_size=3), LOOKS)
def test_a_ladder_comes_back_from_the_store_as_it_was(
    look: Look, previous: list[tuple[Look, float, float]], trial: Look
) -> None:
    trials = tuple(
        Trial("a@b", 2, 10.0, None, place, worn)
        for place, worn in enumerate(trial.adapters)
        if place < len(look.adapters)
    )
    before = tuple(Superseded(*each) for each in previous)
    rung = Rung(RungKind.REGION, "regions/CN", Dress(look, trials), before, worn_since=7.0)
    ladder = Ladder("regions/CN", (rung,))
    assert Ladder.from_body(ladder.to_body()) == ladder


@given(st.lists(LOOKS, min_size=1, max_size=8))
def test_a_rung_remembers_what_it_was_and_never_what_it_is(looks: list[Look]) -> None:
    rung = Rung(RungKind.REGION, "regions/CN", Dress(looks[0]))
    for at, look in enumerate(looks[1:], start=1):
        rung = Rung(RungKind.REGION, "regions/CN", Dress(look)).after(rung, float(at))
        digests = [each.look.digest for each in rung.previous]
        assert look.digest not in digests and len(set(digests)) == len(digests) <= 4
        assert [each.since for each in rung.previous] == sorted((each.since for each in rung.previous), reverse=True)


def test_quick_changes_push_no_look_out_that_was_worn_for_long() -> None:
    first, second, *quick = (Look(f"{number:064x}") for number in range(12))
    rung = Rung(RungKind.REGION, "regions/CN", Dress(first))
    # A rollback to the second look counts what it was worn before.
    changes = [(second, 1e6), (quick[0], 2e6), (second, 2e6 + 1), (quick[1], 2e6 + 2)]
    changes += [(look, 2e6 + 10 * at) for at, look in enumerate(quick[2:], start=1)]
    for look, at in changes:
        rung = Rung(RungKind.REGION, "regions/CN", Dress(look)).after(rung, at)
    assert [each.look for each in rung.previous] == [quick[8], quick[7], second, first]


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.text(min_size=1, max_size=8))
def test_a_caller_stays_with_the_canary_while_its_share_grows(one: float, other: float, key: str) -> None:
    small, large = sorted((one, other))
    assert not takes_canary("a@b", 2, small, key) or takes_canary("a@b", 2, large, key)
    assert takes_canary("a@b", 2, 100, key) and not takes_canary("a@b", 2, 100, "")


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_variants_are_chosen_once_each_from_those_allowed_the_best_first(pictures: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(pictures, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    agreement = random.normal(size=pictures).astype(np.float32)
    allowed = [at for at in range(pictures) if random.random() < 0.7]
    chosen = diverse(agreement, vectors, count, allowed)
    assert len(chosen) == len(set(chosen)) == min(count, len(allowed)) and set(chosen) <= set(allowed)
    if chosen:
        assert agreement[chosen[0]] == max(agreement[allowed])


def test_of_two_pictures_alike_one_gives_way_to_another_that_differs() -> None:
    vectors = np.array([[1, 0], [0.999, 0.0447], [0, 1]], dtype=np.float32)
    assert diverse(np.array([1.0, 0.99, 0.8], dtype=np.float32), vectors, 2, range(3)) == [0, 2]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), max_size=40), st.integers(1000, 9000))
def test_the_cache_keeps_its_budget(puts: list[tuple[int, int]], budget: int) -> None:
    cache = ByteCache[int, int](budget)
    held: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        held[key] = size
        assert cache.used_bytes <= budget
        assert cache.get(key, 0.0) == (size if size + ENTRY_BYTES <= budget else None)
    assert cache.used_bytes == sum(held[key] + ENTRY_BYTES for key in held if cache.get(key, 0.0) is not None)


def test_what_is_past_its_time_is_forgotten() -> None:
    cache = ByteCache[str, str](10_000)
    cache.put("a", "x", 1, until=5.0)
    assert cache.get("a", 4.9) == "x" and cache.get("a", 5.0) is None and cache.used_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=20), st.integers(1, 3))
def test_slots_go_by_place_then_in_turn_and_none_is_lost(callers: list[tuple[int, bool]], number: int) -> None:
    async def scenario() -> None:
        slots, order = Slots(number), []
        first = [await slots.take(0) for _ in range(number)]

        async def caller(name: int, place: int) -> None:
            slot = await slots.take(place)
            order.append(name)
            await asyncio.sleep(0)
            slot.give_back()

        tasks = [asyncio.create_task(caller(name, place)) for name, (place, _) in enumerate(callers)]
        await asyncio.sleep(0)
        gone = [task for task, (_, leaves) in zip(tasks, callers, strict=True) if leaves]
        for task in gone:
            task.cancel()
        for slot in first:
            slot.give_back()
            slot.give_back()  # once is enough, twice changes nothing
        await asyncio.gather(*tasks, return_exceptions=True)
        stayed = [name for name, (_, leaves) in enumerate(callers) if not leaves]
        assert sorted(order) == stayed
        if number == 1:
            assert order == sorted(stayed, key=lambda name: (callers[name][0], name))
        assert [await slots.take(0) for _ in range(number)]

    run(scenario())


def test_candidates_of_one_unit_have_seeds_of_their_own_everywhere() -> None:
    seeds = [Unit("c", "l", SHAPE).seed(number) for number in range(100)]
    assert len(set(seeds)) == 100 and seeds == [Unit("c", "l", SHAPE).seed(number) for number in range(100)]
    assert all(0 <= seed < 2**32 for seed in seeds) and Unit("d", "l", SHAPE).seed(0) != seeds[0]
