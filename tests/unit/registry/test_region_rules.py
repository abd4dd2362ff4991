"""The region tree against a naive one, whatever is put and removed, on two replicas and at once."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.common.errors import TerroirError
from terroir.registry.errors import (
    RecipeInUse,
    RecipeNotFound,
    RegionCycle,
    RegionDuplicate,
    RegionInUse,
    RegionNotFound,
)
from terroir.registry.paging import PageQuery
from terroir.registry.regions.codes import fold
from terroir.registry.regions.recipes import RecipeChoice, StyleRecipe
from terroir.registry.regions.tree import RegionSpec
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.domain_kit import Domain, open_domain
from tests.unit.registry.people import ANA

CODES = ["CN", "CN-ZJ", "cn-zj", "330000", "330100", "330106", "x-jiangnan", "X-JIANGNAN", "x-tea"]
Step = tuple[str, str, str | None, str | None]
"""What to do, with which code or id, parent, saved recipe."""

STEP = st.one_of(
    st.tuples(
        st.just("put"),
        st.sampled_from(CODES),
        st.none() | st.sampled_from(CODES),
        st.sampled_from([None, "r", "s"]),
    ),
    st.tuples(st.just("remove"), st.sampled_from(CODES), st.none(), st.none()),
    st.tuples(st.sampled_from(["save", "forget"]), st.sampled_from(["r", "s"]), st.none(), st.none()),
)
STEPS = st.lists(STEP, max_size=30)
REFUSALS = (RegionNotFound, RegionInUse, RegionCycle, RegionDuplicate, RecipeNotFound, RecipeInUse)


@dataclass
class Naive:
    """Regions and recipes in two dictionaries; where a change would break a rule it is undone."""

    regions: dict[str, tuple[str, str | None, str | None]] = field(default_factory=dict)
    """(spelling, parent, saved recipe) by lower-case code."""
    recipes: set[str] = field(default_factory=set)

    def above(self, code: str) -> str | None:
        """Where a code lies."""
        entry = self.regions.get(code.lower())
        return entry[1] if entry is not None and entry[1] is not None else fold(code)

    def chain(self, code: str) -> list[str] | None:
        """All that a code lies in; None if it never ends."""
        at, found = code, []
        for _ in range(100):
            found.append(self.regions[at.lower()][0] if at.lower() in self.regions else at)
            above = self.above(at)
            if above is None:
                return found
            at = above
        return None

    def change(self, kind: str, code: str, parent: str | None, recipe: str | None) -> type[TerroirError] | None:
        """Do a step; says with which error it is refused."""
        if kind == "save":
            self.recipes.add(code)
        elif kind == "forget":
            if code not in self.recipes:
                return RecipeNotFound
            if any(entry[2] == code for entry in self.regions.values()):
                return RecipeInUse
            self.recipes.remove(code)
        elif kind == "remove":
            return self._remove(code)
        else:
            return self._put(code, parent, recipe)
        return None

    def _put(self, code: str, parent: str | None, recipe: str | None) -> type[TerroirError] | None:
        before = dict(self.regions)
        if code.lower() in before and before[code.lower()][0] != code:
            return RegionDuplicate
        self.regions[code.lower()] = (code, parent, recipe)
        refused: type[TerroirError] | None = None
        if parent is not None and parent.lower() not in self.regions:
            refused = RegionNotFound
        elif self.chain(code) is None:
            refused = RegionCycle
        elif recipe is not None and recipe not in self.recipes:
            refused = RecipeNotFound
        if refused is not None:
            self.regions = before
        return refused

    def _remove(self, code: str) -> type[TerroirError] | None:
        if code.lower() not in self.regions:
            return RegionNotFound
        if any((entry[1] or "").lower() == code.lower() for entry in self.regions.values()):
            return RegionInUse
        before = dict(self.regions)
        del self.regions[code.lower()]
        if self.chain(code) is None:
            self.regions = before
            return RegionCycle
        return None

    def resolve(self, code: str) -> tuple[str | None, str | None] | None:
        """(source, saved recipe); None where nobody put any region of the chain."""
        chain = [at for at in self.chain(code) or [] if at.lower() in self.regions]
        found = [(at, self.regions[at.lower()][2]) for at in chain if self.regions[at.lower()][2] is not None]
        return (found[0] if found else (None, None)) if chain else None


def do(domain: Domain, step: int, kind: str, code: str, parent: str | None, recipe: str | None) -> None:
    """A step on the real thing."""
    op_id = f"{step}-{kind}-{code}"
    if kind == "put":
        domain.regions.put(RegionSpec(code, parent=parent, choice=RecipeChoice(saved=recipe)), ANA, op_id=op_id)
    elif kind == "remove":
        domain.regions.delete(code, ANA, op_id=op_id)
    elif kind == "save":
        domain.recipes.put(code, "", StyleRecipe((), code), ANA, op_id=op_id)
    else:
        domain.recipes.delete(code, ANA, op_id=op_id)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_two_replicas_refuse_and_resolve_as_a_naive_tree_does(
    steps: list[Step],
) -> None:
    store, naive = MemoryStore(), Naive()
    replicas = [open_domain(store), open_domain(store)]
    for number, step in enumerate(steps):
        refused = naive.change(*step)
        if refused is None:
            do(replicas[number % 2], number, *step)
        else:
            with pytest.raises(refused):
                do(replicas[number % 2], number, *step)
    same_on_all(naive, replicas)


def same_on_all(naive: Naive, replicas: list[Domain]) -> None:
    """Every replica resolves every code as the naive tree does."""
    for code in {*CODES, "330199", "CN-SC", "FR"}:
        expected = naive.resolve(code)
        for replica in replicas:
            assert list(replica.regions.chain(code)) == naive.chain(code)
            if expected is None:
                with pytest.raises(RegionNotFound):
                    replica.regions.resolve(code)
                continue
            found = replica.regions.resolve(code)
            assert (found.source, found.saved_recipe) == expected
            assert found.recipe == (StyleRecipe((), expected[1]) if expected[1] else None)


class Interrupted(MemoryStore):
    """Lets another writer be faster, just before the next document of the regions is created."""

    def __init__(self) -> None:
        super().__init__()
        self.before_create: Callable[[], object] | None = None

    def create(self, key: str, body: bytes) -> None:
        """Run what was armed, then create."""
        if self.before_create is not None and re.fullmatch(r"regions/[0-9]{20}\.json", key):
            faster, self.before_create = self.before_create, None
            faster()
        super().create(key, body)


@settings(deadline=None, max_examples=200)
@given(STEPS, STEP, STEP)
def test_a_change_that_another_replica_overtook_is_judged_by_what_that_one_left(
    steps: list[Step], slower: Step, faster: Step
) -> None:
    store, naive = Interrupted(), Naive()
    first, second = open_domain(store), open_domain(store)
    for number, step in enumerate(steps):
        if naive.change(*step) is None:
            do(first, number, *step)
    refused_alone = copy.deepcopy(naive).change(*slower)
    if refused_alone is not None:
        return  # it would never come to a write that can be overtaken
    faster_refused = naive.change(*faster)
    slower_refused = naive.change(*slower)

    def overtake() -> None:
        with pytest.raises(faster_refused) if faster_refused else nullcontext():
            do(second, 1001, *faster)

    store.before_create = overtake
    with pytest.raises(slower_refused) if slower_refused else nullcontext():
        do(first, 1000, *slower)
    assert store.before_create is None
    same_on_all(naive, [first, second, open_domain(store)])


@pytest.mark.parametrize(
    ("slower", "faster", "refused"),
    [
        (("put", "B", "A", None), ("put", "A", "B", None), RegionCycle),
        (("put", "B", "A", None), ("remove", "A", None, None), RegionNotFound),
        (("remove", "A", None, None), ("put", "B", "A", None), RegionInUse),
        (("put", "A", None, "r"), ("forget", "r", None, None), RecipeNotFound),
        (("forget", "r", None, None), ("put", "A", None, "r"), RecipeInUse),
        (("put", "x-new", None, None), ("put", "X-NEW", None, None), RegionDuplicate),
        (("remove", "A", None, None), ("remove", "A", None, None), RegionNotFound),
    ],
)
def test_of_two_halves_of_a_broken_rule_the_slower_is_refused(
    slower: Step, faster: Step, refused: type[TerroirError]
) -> None:
    store = Interrupted()
    first, second = open_domain(store), open_domain(store)
    for number, step in enumerate([("put", "A", None, None), ("put", "B", None, None), ("save", "r", None, None)]):
        do(first, number, *step)
    store.before_create = lambda: do(second, 1001, *faster)
    with pytest.raises(refused):
        do(first, 1000, *slower)


@settings(deadline=None, max_examples=25)
@given(st.lists(STEP, min_size=2, max_size=16))
def test_however_four_replicas_race_every_chain_ends_and_every_recipe_named_is_there(steps: list[Step]) -> None:
    store = MemoryStore()
    replicas = [open_domain(store) for _ in range(4)]

    def attempt(number: int) -> None:
        with suppress(*REFUSALS):
            do(replicas[number % 4], number, *steps[number])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, range(len(steps))))
    last = open_domain(store)
    for region in last.regions.page(PageQuery(200)).items:
        assert last.regions.chain(region.spec.code)
        for recipe in region.spec.saved_recipes():
            last.recipes.get(recipe)
    for replica in replicas:
        assert replica.regions.page(PageQuery(200)) == last.regions.page(PageQuery(200))
