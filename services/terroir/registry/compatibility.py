"""Whether published adapters stack: every pair compared once, ever, and the answer kept beside the blobs.

What is compared is the tensors, so the cache is keyed by the pair of tensor digests: a version that only rewrites a
header, an alias and another adapter with equal tensors all meet the same entry. The entry holds what was measured; the
score and the verdict are computed from it at every call.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import structlog

from terroir.common.errors import InvalidArgument
from terroir.lora.adapter import Adapter
from terroir.lora.compatibility import Level, Overlap, compare_pairs, interference, level_of, suggested_weights
from terroir.lora.errors import UnsupportedAdapter
from terroir.registry.adapter_file import read_adapter_file
from terroir.registry.adapters import Adapters
from terroir.registry.bases.bases import Bases
from terroir.registry.errors import BasesDiffer, NotComparable
from terroir.registry.names import VersionRef, base_name
from terroir.registry.versions import Version
from terroir.store.blobs import Blobs
from terroir.store.errors import AlreadyExists, NotFound, StoreError, StoreUnavailable
from terroir.store.interface import ObjectStore

ALGORITHM: Final = "1"
"""Part of the cache's keys; raise it when a stored figure changes its meaning."""
MAX_ADAPTERS: Final = 8
_MEMORY_BYTES: Final = 512 * 1024**2
"""Adapter files held at once; a request for more is computed pair by pair, which takes longer."""

_log = structlog.get_logger(__name__)
_Pair = tuple[int, int]


@dataclass(frozen=True)
class PairCompatibility:
    """How two versions get along."""

    first: Version
    second: Version
    overlap: Overlap

    @property
    def interference(self) -> float:
        """See `terroir.lora.compatibility.interference`."""
        return interference(self.overlap)

    @property
    def level(self) -> Level:
        """Verdict on the score."""
        return level_of(self.interference)


@dataclass(frozen=True)
class Compatibility:
    """How a stack gets along."""

    pairs: tuple[PairCompatibility, ...]
    """Every pair, in order of the request."""
    suggested_weights: tuple[float, ...]

    @property
    def level(self) -> Level:
        """The worst pair's."""
        return max(pair.level for pair in self.pairs)


class CompatibilityCheck:
    """Compares versions, at most once a pair of tensors."""

    def __init__(self, store: ObjectStore, adapters: Adapters, bases: Bases) -> None:
        self._store = store
        self._blobs = Blobs(store)
        self._adapters = adapters
        self._bases = bases

    def check(self, references: Sequence[VersionRef]) -> Compatibility:
        """Compare all pairs of 2 … 8 versions; up to seconds of work, so keep it off an event loop.

        Raises InvalidArgument (COMPATIBILITY_COUNT, COMPATIBILITY_TWICE), what `Adapters.resolve` raises, BasesDiffer,
        and NotComparable for LoHa and LoKr.
        """
        _ensure_count(len(references))
        versions = [self._adapters.resolve(reference) for reference in references]
        _ensure_stackable(versions)
        found = self._overlaps(versions)
        return Compatibility(
            pairs=tuple(PairCompatibility(versions[a], versions[b], overlap) for (a, b), overlap in found.items()),
            suggested_weights=tuple(map(float, suggested_weights(_gram(len(versions), found)))),
        )

    def _overlaps(self, versions: Sequence[Version]) -> dict[_Pair, Overlap]:
        pairs = list(itertools.combinations(range(len(versions)), 2))
        found = {pair: self._kept(versions, pair) for pair in pairs}
        missing = [pair for pair, overlap in found.items() if overlap is None]
        for batch in _batches(versions, missing):
            for pair, overlap in self._compare(versions, batch).items():
                self._keep(versions, pair, overlap)
                found[pair] = overlap
        return {pair: overlap for pair, overlap in found.items() if overlap is not None}

    def _compare(self, versions: Sequence[Version], pairs: Sequence[_Pair]) -> dict[_Pair, Overlap]:
        wanted = {position for pair in pairs for position in pair}
        nothing = Adapter({})
        adapters = [self._load(version) if at in wanted else nothing for at, version in enumerate(versions)]
        try:
            return compare_pairs(adapters, pairs)
        except UnsupportedAdapter as error:
            raise NotComparable(str(error)) from error

    def _load(self, version: Version) -> Adapter:
        manifest = version.manifest
        table = self._bases.key_table(self._bases.get(manifest.base))
        return read_adapter_file(self._blobs.get(manifest.kohya.digest), table).adapter

    def _kept(self, versions: Sequence[Version], pair: _Pair) -> Overlap | None:
        key, in_order = _key(versions, pair)
        try:
            overlap = _overlap(json.loads(self._store.get(key)))
        except NotFound:
            return None
        except (ValueError, TypeError, KeyError):
            _log.warning("compatibility_entry_damaged", key=key)
            self._forget(key)
            return None
        return overlap if in_order else overlap.reversed

    def _keep(self, versions: Sequence[Version], pair: _Pair, overlap: Overlap) -> None:
        key, in_order = _key(versions, pair)
        body = {"algorithm": ALGORITHM, "overlap": asdict(overlap if in_order else overlap.reversed)}
        try:
            with suppress(AlreadyExists):  # another replica compared the same pair
                self._store.create(key, json.dumps(body, sort_keys=True).encode())
        except StoreUnavailable as error:
            # The answer is known; only the next caller waits again. A replica may have no right to write.
            _log.warning("compatibility_not_kept", key=key, reason=error.reason)

    def _forget(self, key: str) -> None:
        with suppress(StoreError):
            self._store.delete(key)


def _ensure_count(count: int) -> None:
    if not 2 <= count <= MAX_ADAPTERS:
        raise InvalidArgument(
            f"adapters names {count}; name 2 to {MAX_ADAPTERS} to compare",
            reason="COMPATIBILITY_COUNT",
            field="adapters",
        )


def _ensure_stackable(versions: Sequence[Version]) -> None:
    first = versions[0]
    for number, version in enumerate(versions):
        if any(version.name == other.name for other in versions[:number]):
            raise InvalidArgument(
                f"{version.name} is named twice; in a stack its weights add up to one adapter: name it once",
                reason="COMPATIBILITY_TWICE",
                field="adapters",
            )
        if version.manifest.base_digest != first.manifest.base_digest:
            raise BasesDiffer(
                f"{first.name} is for {_base(first)}, {version.name} for {_base(version)}; only adapters of one base "
                "stack: choose versions of the same base, or retrain one of them",
                metadata={"first": first.name, "second": version.name},
            )


def _base(version: Version) -> str:
    return f"{base_name(version.manifest.base)} ({version.manifest.base_digest[:12]})"


def _batches(versions: Sequence[Version], pairs: list[_Pair]) -> Iterator[list[_Pair]]:
    positions = {position for pair in pairs for position in pair}
    if sum(versions[at].manifest.kohya.size_bytes for at in positions) <= _MEMORY_BYTES:
        yield pairs
    else:
        yield from ([pair] for pair in pairs)


def _key(versions: Sequence[Version], pair: _Pair) -> tuple[str, bool]:
    """The pair's key and whether it is stored in this order."""
    first, second = (versions[at].manifest.tensor_digest for at in pair)
    low, high = sorted((first, second))
    return f"compat/{ALGORITHM}/{low}--{high}.json", first == low


def _overlap(body: dict[str, Any]) -> Overlap:
    if body["algorithm"] != ALGORITHM:
        raise ValueError(body["algorithm"])
    overlap = Overlap(**body["overlap"])
    if not np.isfinite(list(asdict(overlap).values())).all():
        raise ValueError("not finite")
    return overlap


def _gram(count: int, overlaps: dict[_Pair, Overlap]) -> np.ndarray[Any, np.dtype[np.float64]]:
    gram = np.zeros((count, count))
    for (first, second), overlap in overlaps.items():
        gram[first, second] = gram[second, first] = overlap.inner
        gram[first, first], gram[second, second] = overlap.first_norm**2, overlap.second_norm**2
    return gram
