"""What may answer for a region, best first: its own style, those of the regions that it lies in, the bare base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from terroir.common.sticky import takes_canary
from terroir.inference.covers.looks import Look, Worn

MAX_PREVIOUS: Final = 4
"""Looks of a rung that are remembered after it changed."""
_NEWEST: Final = 2
"""Of these. The others are those worn longest, which have most covers: a few quick changes must not push them out."""


class RungKind(StrEnum):
    """Which cover answers."""

    REGION = "region"
    PARENT = "parent"
    BASE = "base"
    DEFAULT = "default"


class Lack(StrEnum):
    """Why a better rung does not."""

    NONE = ""
    NOT_DRAWN = "not_drawn"
    REGION_UNKNOWN = "region_unknown"
    REGISTRY_UNREACHABLE = "registry_unreachable"
    STORE_UNREACHABLE = "store_unreachable"
    MODEL_LOADING = "model_loading"


@dataclass(frozen=True)
class Trial:
    """A canary of one of a recipe's adapters."""

    alias: str
    """`{adapter}@{alias}`."""
    number: int
    percent: float
    expires_at: float | None
    """Seconds since 1970."""
    place: int
    """Position of the adapter in the look."""
    worn: Worn
    """What a share of the callers get there."""


@dataclass(frozen=True)
class Dress:
    """A recipe as it is worn now."""

    look: Look
    """With the aliases' own versions."""
    trials: tuple[Trial, ...] = ()

    def look_for(self, sticky_key: str, now: float) -> Look:
        """The look that a caller gets; `now` in seconds since 1970."""
        look = self.look
        for trial in self.trials:
            over = trial.expires_at is not None and now >= trial.expires_at
            if not over and takes_canary(trial.alias, trial.number, trial.percent, sticky_key):
                look = _with(look, trial)
        return look

    def looks(self) -> Iterator[Look]:
        """Every look that some caller may get."""
        found = {self.look.digest: self.look}
        for trial in self.trials:
            found |= {look.digest: look for look in [_with(look, trial) for look in found.values()]}
        return iter(found.values())


@dataclass(frozen=True)
class Superseded:
    """A look that a rung had."""

    look: Look
    since: float
    """When it had it no longer, in seconds since 1970."""
    worn_seconds: float
    """For how long it had it; a canary's look counts as 0."""


@dataclass(frozen=True)
class Rung:
    """One step of a ladder."""

    kind: RungKind
    source: str
    """Region whose recipe it is; empty for the base."""
    dress: Dress
    previous: tuple[Superseded, ...] = ()
    """Newest first."""
    worn_since: float = 0.0
    """From when on it wears its look, in seconds since 1970; 0: for as long as anybody remembers."""

    def after(self, before: Rung, now: float) -> Rung:
        """With what it was before among the previous looks."""
        look, last = self.dress.look.digest, before.dress.look.digest
        worn = {each.look.digest: each.worn_seconds for each in before.previous}
        current = {each.digest for each in self.dress.looks()}
        gone = [
            Superseded(each, now, now - before.worn_since if each.digest == last else 0.0)
            for each in before.dress.looks() if each.digest not in current
        ]  # fmt: skip
        older = [each for each in before.previous if each.look.digest not in current]
        distinct = {each.look.digest: each for each in reversed([*gone, *older])}
        newest = sorted(distinct.values(), key=lambda each: -each.since)
        longest = sorted(newest[_NEWEST:], key=lambda each: -each.worn_seconds)[: MAX_PREVIOUS - _NEWEST]
        kept = sorted([*newest[:_NEWEST], *longest], key=lambda each: -each.since)
        worn_since = before.worn_since if look == last else now - worn.get(look, 0.0)
        return replace(self, previous=tuple(kept), worn_since=worn_since)

    def without(self, withdrawn: frozenset[str]) -> Rung:
        """Without previous looks that wear an adapter, by file digest, which must not be shown any more."""
        kept = tuple(
            each for each in self.previous if not any(worn.file_digest in withdrawn for worn in each.look.adapters)
        )
        return self if len(kept) == len(self.previous) else replace(self, previous=kept)


@dataclass(frozen=True)
class Ladder:
    """All that may answer for a region."""

    region: str
    rungs: tuple[Rung, ...]
    lack: Lack = Lack.NONE
    """Why the region's own rung is not among them."""
    names: tuple[str, ...] = ()
    """Adapters, `adapters/{id}`, that its recipes name, also those that can't be worn now."""
    absent: tuple[Rung, ...] = ()
    """What rungs were that it had and has not now; they answer nothing."""

    @property
    def own(self) -> Rung | None:
        """The rung of the region's own style, unless it has none that can be drawn."""
        if self.lack or not self.rungs or self.rungs[0].kind is not RungKind.REGION:
            return None
        return self.rungs[0]

    def after(self, before: Ladder, now: float) -> Ladder:
        """With the previous looks of each rung, told apart by their regions."""
        known = {rung.source: rung for rung in (*before.absent, *before.rungs)}
        rungs = [rung.after(known.pop(rung.source), now) if rung.source in known else rung for rung in self.rungs]
        return replace(self, rungs=tuple(rungs), absent=tuple(known.values())[-MAX_PREVIOUS:])

    def without(self, withdrawn: frozenset[str]) -> Ladder:
        """As `Rung.without`, on all rungs."""
        rungs = tuple(rung.without(withdrawn) for rung in self.rungs)
        return replace(self, rungs=rungs, absent=tuple(rung.without(withdrawn) for rung in self.absent))

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Ladder:
        """Inverse of `to_body`; raises TypeError, KeyError or ValueError for anything else."""
        rungs, absent = (tuple(map(_rung_of, body[part])) for part in ("rungs", "absent"))
        return Ladder(body["region"], rungs, Lack(body["lack"]), tuple(body["names"]), absent)


def _with(look: Look, trial: Trial) -> Look:
    adapters = list(look.adapters)
    adapters[trial.place] = trial.worn
    return replace(look, adapters=tuple(adapters))


def _rung_of(body: Mapping[str, Any]) -> Rung:
    trials = tuple(Trial(**{**each, "worn": Worn(**each["worn"])}) for each in body["dress"]["trials"])
    dress = Dress(Look.from_body(body["dress"]["look"]), trials)
    previous = tuple(
        Superseded(Look.from_body(each["look"]), each["since"], each["worn_seconds"]) for each in body["previous"]
    )
    return Rung(RungKind(body["kind"]), body["source"], dress, previous, body["worn_since"])
