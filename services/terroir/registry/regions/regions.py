"""Regions: which style recipe a place gets, on a day and in a campaign."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from terroir.common.clock import Clock
from terroir.common.principal import Principal, Role
from terroir.common.validation import ensure_identifier, ensure_text
from terroir.registry.adapters import Adapters
from terroir.registry.errors import RegionDuplicate, RegionEtagMismatch, RegionNotFound
from terroir.registry.names import region_name
from terroir.registry.paging import Page, PageQuery, sorted_page_of
from terroir.registry.regions.codes import same
from terroir.registry.regions.log import RegionLog, RegionState, region_body, region_of
from terroir.registry.regions.recipes import RecipeChoice, StyleRecipe
from terroir.registry.regions.saved_recipes import ensure_adapters_exist, find_recipe
from terroir.registry.regions.seasons import ensure_seasons
from terroir.registry.regions.tree import Region, RegionSpec, RegionTree

MAX_DISPLAY_NAME_CHARACTERS: Final = 120


@dataclass(frozen=True)
class Resolution:
    """What a region gets, and how that was found."""

    recipe: StyleRecipe | None
    tried: tuple[str, ...]
    """Codes that were asked, in order, also those that nobody put."""
    source: str | None = None
    """Code of the region that the recipe came from."""
    season: str | None = None
    """Its season that applied; None if its plain recipe did."""
    saved_recipe: str | None = None
    """Id of the saved recipe that it names; None if the recipe is its own."""
    further: tuple[str, ...] = ()
    """Codes that the source lies in, nearest first."""


class Regions:
    """Reads and changes the region tree; safe for threads."""

    def __init__(self, log: RegionLog, adapters: Adapters, clock: Clock) -> None:
        """`clock` tells today, for callers that name no day."""
        self._log = log
        self._adapters = adapters
        self._clock = clock

    def get(self, code: str) -> Region:
        """One region, its code in any case; raises RegionNotFound."""
        return self._log.current().tree.find(code)

    def page(self, query: PageQuery) -> Page[Region]:
        """Regions by code."""
        tree = self._log.current().tree
        return sorted_page_of(tree.codes(), query, tree.find, listing="regions")

    def chain(self, code: str) -> tuple[str, ...]:
        """`code` and all that it lies in, nearest first; codes that nobody put lie where their spelling tells."""
        return tuple(self._log.current().tree.chain(code))

    def within(self, code: str, codes: Iterable[str]) -> frozenset[str]:
        """Those of `codes` that are `code`, in any case, or lie in it."""
        tree = self._log.current().tree
        return frozenset(each for each in codes if same(code) in map(same, tree.chain(each)))

    def put(self, spec: RegionSpec, principal: Principal, *, op_id: str, etag: str = "") -> Region:
        """Create or replace a region, once however often this is repeated with one `op_id`.

        Raises PermissionDenied, InvalidArgument for a bad recipe or season, RegionNotFound for the parent,
        RecipeNotFound for a saved recipe, AdapterNotFound, VersionNotFound or AliasNotFound for a recipe's adapter,
        RegionCycle, RegionDuplicate when its code differs only by case from another's, RegionEtagMismatch when `etag`
        is not empty and the region changed since, and OperationConflict when `op_id` did something else.
        """
        principal.require(Role.STYLIST, f"put {region_name(spec.code)}")
        ensure_text(spec.display_name, "region.display_name", MAX_DISPLAY_NAME_CHARACTERS)
        spec.choice.ensure("region")
        ensure_seasons(spec.seasons, "region.seasons")

        def build(state: RegionState) -> dict[str, Any]:
            _ensure_only_spelling(state.tree, spec.code)
            _ensure_etag(state.tree, spec.code, etag)
            tree = state.tree.put(Region(spec, ""))
            self._ensure_choice(state, spec.choice, "region")
            for index, season in enumerate(spec.seasons):
                self._ensure_choice(state, season.choice, f"region.seasons[{index}]")
            parent = tree.find(spec.parent).spec.code if spec.parent is not None else None
            return region_body(spec.code, replace(spec, parent=parent), principal)

        request = {"put": spec.to_body(), "etag": etag}
        return region_of(self._log.append(build, op_id=op_id, request=request))

    def delete(self, code: str, principal: Principal, *, op_id: str, etag: str = "") -> None:
        """Remove a region, once however often this is repeated with one `op_id`.

        Raises PermissionDenied, RegionNotFound, RegionInUse while others name it as parent, RegionCycle when its code's
        spelling would close one, RegionEtagMismatch and OperationConflict as `put`.
        """
        principal.require(Role.STYLIST, f"remove {region_name(code)}")

        def build(state: RegionState) -> dict[str, Any]:
            found = state.tree.find(code)
            _ensure_etag(state.tree, code, etag)
            state.tree.remove(code)
            return region_body(found.spec.code, None, principal)

        self._log.append(build, op_id=op_id, request={"delete": region_name(code), "etag": etag})

    def resolve(self, code: str, *, day: date | None = None, campaign: str = "") -> Resolution:
        """The recipe of a region, or of the nearest that it lies in and that has one; `day` is today (UTC) if None.

        Raises RegionNotFound when nobody put any region of the chain, and InvalidArgument for a bad campaign.
        """
        if campaign:
            ensure_identifier(campaign, "campaign")
        state, day = self._log.current(), day or self._clock.now().date()
        tried: list[str] = []
        known = False
        chain = state.tree.chain(code)
        for at in chain:
            tried.append(at)
            region = state.tree.get(at)
            if region is None:
                continue
            known = True
            choice, season = region.spec.choice_on(day, campaign)
            if not choice.is_empty:
                recipe = choice.recipe if choice.saved is None else find_recipe(state, choice.saved).style
                return Resolution(recipe, tuple(tried), at, season, choice.saved, tuple(chain))
        if not known:
            raise _nowhere(code, tried)
        return Resolution(None, tuple(tried))

    def _ensure_choice(self, state: RegionState, choice: RecipeChoice, field: str) -> None:
        if choice.saved is not None:
            find_recipe(state, choice.saved)
        if choice.recipe is not None:
            ensure_adapters_exist(self._adapters, choice.recipe, f"{field}.recipe")


def _ensure_only_spelling(tree: RegionTree, code: str) -> None:
    there = tree.get(code)
    if there is not None and there.spec.code != code:
        raise RegionDuplicate(
            f"{region_name(code)} differs only by case from {region_name(there.spec.code)}; put that one",
            metadata={"region": region_name(there.spec.code)},
        )


def _ensure_etag(tree: RegionTree, code: str, etag: str) -> None:
    region = tree.get(code)
    current = region.etag if region is not None else "none"
    if etag and etag != current:
        raise RegionEtagMismatch(
            f"{region_name(code)} changed since it was read: its etag is {current}, not {etag}; read it and repeat",
            metadata={"region": region_name(code), "etag": current},
        )


def _nowhere(code: str, tried: list[str]) -> RegionNotFound:
    within = f", nor does any that it lies in ({', '.join(tried[1:])})" if tried[1:] else ""
    return RegionNotFound(
        f"{region_name(code)} does not exist{within}: create one with PutRegion, list regions with ListRegions",
        metadata={"region": region_name(code), "tried": " ".join(tried)},
    )
