"""The region tree against a naive one, whatever is put and removed, on two replicas and at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
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
from terroir.registry.recipes import RecipeChoice, StyleRecipe
from terroir.registry.region_codes import fold
from terroir.registry.region_tree import RegionSpec
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.domain_kit import Domain, open_domain
from tests.unit.registry.people import ANA

CODES = ["CN", "CN-ZJ", "cn-zj", "330000", "330100", "330106", "x-jiangnan", "X-JIANGNAN", "x-tea"]
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from(CODES),
            st.none() | st.sampled_from(CODES),
            st.sampled_from([None, "r", "s"]),
        ),
        st.tuples(st.just("remove"), st.sampled_from(CODES), st.none(), st.none()),
        st.tuples(st.sampled_from(["save", "forget"]), st.sampled_from(["r", "s"]), st.none(), st.none()),
    ),
    max_size=30,
)


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
    steps: list[tuple[str, str, str | None, str | None]],
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


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("ABCD")), min_size=2, max_size=12))
def test_however_replicas_race_no_chain_becomes_a_cycle_and_no_change_is_lost(moves: list[tuple[str, str]]) -> None:
    store = MemoryStore()
    replicas = [open_domain(store) for _ in range(4)]
    for code in "ABCD":
        replicas[0].regions.put(RegionSpec(code), ANA, op_id=code)

    def move(number: int) -> bool:
        code, parent = moves[number]
        try:
            replicas[number % 4].regions.put(RegionSpec(code, parent=parent), ANA, op_id=f"move-{number}")
        except RegionCycle:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(move, range(len(moves))))
    last = open_domain(store)
    for code in "ABCD":
        tried = last.regions.resolve(code).tried
        assert len(set(tried)) == len(tried)
    regions = {region.spec.code: region.spec.parent for region in last.regions.page(PageQuery()).items}
    for code in "ABCD":
        moved: list[str | None] = [
            parent for (at, parent), worked in zip(moves, done, strict=True) if worked and at == code
        ]
        assert regions[code] in (moved or [None])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["save", "forget", "name", "drop"]), min_size=2, max_size=16))
def test_however_replicas_race_no_region_names_a_recipe_that_is_gone(steps: list[str]) -> None:
    store = MemoryStore()
    replicas = [open_domain(store) for _ in range(4)]

    def step(number: int) -> None:
        regions, recipes, op_id = replicas[number % 4].regions, replicas[number % 4].recipes, str(number)
        try:
            match steps[number]:
                case "save":
                    recipes.put("r", "", StyleRecipe(), ANA, op_id=op_id)
                case "forget":
                    recipes.delete("r", ANA, op_id=op_id)
                case "name":
                    regions.put(RegionSpec("CN", choice=RecipeChoice(saved="r")), ANA, op_id=op_id)
                case _:
                    regions.put(RegionSpec("CN"), ANA, op_id=op_id)
        except (RecipeNotFound, RecipeInUse):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(step, range(len(steps))))
    for region in open_domain(store).regions.page(PageQuery()).items:
        for recipe in region.spec.saved_recipes():
            open_domain(store).recipes.get(recipe)
