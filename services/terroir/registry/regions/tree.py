"""The region tree as a value: who lies where, by what was said and by how codes are spelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from terroir.registry.errors import RegionCycle, RegionInUse, RegionNotFound
from terroir.registry.names import region_name
from terroir.registry.regions.codes import fold, same
from terroir.registry.regions.recipes import NO_CHOICE, RecipeChoice
from terroir.registry.regions.seasons import Season


@dataclass(frozen=True)
class RegionSpec:
    """A region as somebody wants it."""

    code: str
    display_name: str = ""
    parent: str | None = None
    """Code of the parent; None for the one that the code's spelling tells, if any."""
    choice: RecipeChoice = NO_CHOICE
    """Empty for the parent's."""
    seasons: tuple[Season, ...] = ()
    """The first that applies wins over `choice`."""

    def choice_on(self, day: date, campaign: str) -> tuple[RecipeChoice, str | None]:
        """What it says for a day and a campaign, and the season that says so."""
        for season in self.seasons:
            if season.applies(day, campaign):
                return season.choice, season.id
        return self.choice, None

    def saved_recipes(self) -> set[str]:
        """Ids of all saved recipes that it names."""
        choices = (self.choice, *(season.choice for season in self.seasons))
        return {choice.saved for choice in choices if choice.saved is not None}

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return {
            "code": self.code,
            "display_name": self.display_name,
            "parent": self.parent,
            "choice": self.choice.to_body(),
            "seasons": [season.to_body() for season in self.seasons],
        }

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> RegionSpec:
        """Inverse of `to_body`."""
        choice, seasons = RecipeChoice.from_body(body["choice"]), tuple(map(Season.from_body, body["seasons"]))
        return RegionSpec(**{**body, "choice": choice, "seasons": seasons})


@dataclass(frozen=True)
class Region:
    """A region as it is."""

    spec: RegionSpec
    etag: str


@dataclass(frozen=True)
class RegionTree:
    """All regions at one moment; never changed in place, so a reader may keep it."""

    regions: Mapping[str, Region]
    """By `same(code)`."""

    def get(self, code: str) -> Region | None:
        """The region with this code in any case, if somebody put it."""
        return self.regions.get(same(code))

    def find(self, code: str) -> Region:
        """As `get`; raises RegionNotFound."""
        region = self.get(code)
        if region is None:
            raise RegionNotFound(
                f"{region_name(code)} does not exist (create it with PutRegion, list regions with ListRegions)",
                metadata={"region": region_name(code)},
            )
        return region

    def codes(self) -> list[str]:
        """Codes of all regions, as they were put, sorted."""
        return sorted(region.spec.code for region in self.regions.values())

    def chain(self, code: str) -> Iterator[str]:
        """`code` and all that it lies in, nearest first, whether somebody put them or only the spelling tells.

        Raises RegionCycle where it comes back to a code, which no tree does that `put` and `remove` let through.
        """
        seen: dict[str, str] = {}
        at: str | None = code
        while at is not None:
            region = self.get(at)
            spelled = region.spec.code if region is not None else at
            if same(at) in seen:
                raise _cycle(spelled, (*seen.values(), spelled))
            seen[same(at)] = spelled
            yield spelled
            at = _above(region, at)

    def put(self, region: Region) -> RegionTree:
        """With this region; raises RegionNotFound for its parent, and RegionCycle."""
        tree = RegionTree({**self.regions, same(region.spec.code): region})
        if region.spec.parent is not None:
            tree.find(region.spec.parent)
        _exhaust(tree.chain(region.spec.code))
        return tree

    def remove(self, code: str) -> RegionTree:
        """Without a region; raises RegionNotFound, RegionInUse, and RegionCycle if its code's spelling closes one."""
        self.find(code)
        children = sorted(
            region.spec.code
            for region in self.regions.values()
            if region.spec.parent is not None and same(region.spec.parent) == same(code)
        )
        if children:
            shown = ", ".join(children[:5]) + (f" and {len(children) - 5} more" if len(children) > 5 else "")
            raise RegionInUse(
                f"{region_name(code)} is the parent of {shown}; give each another parent first",
                metadata={"region": region_name(code), "children": str(len(children))},
            )
        tree = RegionTree({key: region for key, region in self.regions.items() if key != same(code)})
        _exhaust(tree.chain(code))
        return tree


def _cycle(code: str, chain: tuple[str, ...]) -> RegionCycle:
    return RegionCycle(
        f"{region_name(code)} would be its own ancestor: {' → '.join(chain)}; choose another parent",
        metadata={"chain": " ".join(chain)},
    )


def _above(region: Region | None, code: str) -> str | None:
    stated = region.spec.parent if region is not None else None
    return stated if stated is not None else fold(code)


def _exhaust(chain: Iterator[str]) -> None:
    """One change can close a cycle only through the region that it changed, so walking from there tells."""
    for _ in chain:
        pass
