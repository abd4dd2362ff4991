"""Where a version came from, and what came of it.

Backwards from a version: its checkpoint, job, dataset version, configuration, code and base, then the version that its
training went on from, and so on. Forwards: the versions whose training went on from it, and so on, and for it and each
of these the aliases that point there, which is who is concerned when a picture must be taken back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from terroir.common.clock import Clock
from terroir.common.errors import InvalidArgument
from terroir.registry.adapters import Adapters
from terroir.registry.errors import AdapterNotFound, VersionNotFound
from terroir.registry.index.fold import Index
from terroir.registry.moving.canary import running
from terroir.registry.names import VersionRef, adapter_name, base_name, parse_version, version_name
from terroir.registry.versions import Version

MAX_VERSIONS: Final = 500
"""As many versions are followed; a family of adapters that is larger is cut, the farthest first."""


@dataclass(frozen=True)
class Thing:
    """A node of a lineage."""

    name: str
    kind: str
    """`adapter_version`, `alias`, `base`, `job`, `checkpoint`, `dataset_version`, `config` or `code`."""
    digest: str = ""


@dataclass(frozen=True)
class Dependence:
    """An edge: `target` was made from or points at `source`."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True)
class LineageGraph:
    """Things around one version, which is the first, each once."""

    things: tuple[Thing, ...]
    dependences: tuple[Dependence, ...]


class _Direction(Enum):
    BOTH = auto()
    BACKWARDS = auto()
    FORWARDS = auto()


class Lineages:
    """Follows versions in both directions."""

    def __init__(self, adapters: Adapters, index: Index, clock: Clock) -> None:
        """`index` tells what was trained from a version, `clock` which canaries have ended."""
        self._adapters = adapters
        self._index = index
        self._clock = clock

    def around(self, reference: VersionRef) -> LineageGraph:
        """The graph around a version; raises AdapterNotFound, VersionNotFound or AliasNotFound.

        A parent that this registry does not hold (it was published elsewhere) is a thing without a digest.
        """
        graph = _Growing()
        start = self._adapters.resolve(reference)
        ahead = deque([(start, _Direction.BOTH)])
        met = {start.name}
        while ahead:
            version, direction = ahead.popleft()
            self._add_version(graph, version, direction)
            for edge, other, onwards in self._neighbours(version, direction):
                if other not in met:
                    if len(met) == MAX_VERSIONS:
                        continue
                    met.add(other)
                    graph.add(Thing(other, "adapter_version"))
                    if found := self._find(other):
                        ahead.append((found, onwards))
                graph.join(edge)
        return graph.done()

    def _add_version(self, graph: _Growing, version: Version, direction: _Direction) -> None:
        graph.add(Thing(version.name, "adapter_version", version.manifest.kohya.digest))
        if direction is not _Direction.FORWARDS:
            _add_origin(graph, version)
        if direction is not _Direction.BACKWARDS:
            self._add_aliases(graph, version)

    def _neighbours(self, version: Version, direction: _Direction) -> Iterator[tuple[Dependence, str, _Direction]]:
        """Edges to other versions, each with the other's name and the direction in which to go on from there."""
        parent = version.manifest.lineage.parent
        if parent and direction is not _Direction.FORWARDS:
            yield Dependence(parent, version.name, "continued_from"), parent, _Direction.BACKWARDS
        if direction is not _Direction.BACKWARDS:
            for adapter, number in self._index.trained_from(version.name):
                child = version_name(adapter, number)
                yield Dependence(version.name, child, "continued_from"), child, _Direction.FORWARDS

    def _add_aliases(self, graph: _Growing, version: Version) -> None:
        for alias, entry in sorted(self._adapters.state(version.adapter).aliases.items()):
            canary = running(entry, self._clock.now())
            numbers = {"points_at": entry.number, "tries": canary.number if canary else None}
            for relation, number in numbers.items():
                if number == version.number:
                    graph.add(Thing(f"{adapter_name(version.adapter)}@{alias}", "alias"))
                    graph.join(Dependence(version.name, f"{adapter_name(version.adapter)}@{alias}", relation))

    def _find(self, name: str) -> Version | None:
        try:
            adapter, number = parse_version(name)
            return self._adapters.resolve(VersionRef(adapter, number))
        except (InvalidArgument, AdapterNotFound, VersionNotFound):
            return None


def _add_origin(graph: _Growing, version: Version) -> None:
    """What a version tells of itself; what is made by a job hangs on the job, else on the version."""
    manifest, told = version.manifest, version.manifest.lineage
    maker = told.job or version.name
    sources = (
        (Thing(base_name(manifest.base), "base", manifest.base_digest), version.name, "based_on"),
        (Thing(told.dataset_version, "dataset_version", told.dataset_digest), version.name, "trained_on"),
        (Thing(told.checkpoint, "checkpoint"), version.name, "made_by"),
        (Thing(told.job, "job"), told.checkpoint or version.name, "made_by"),
        (Thing(_named("config", told.config_digest), "config", told.config_digest), maker, "configured_by"),
        (Thing(_named("code", told.code_version), "code"), maker, "ran"),
    )
    for thing, target, relation in sources:
        if thing.name:
            graph.add(thing)
            graph.join(Dependence(thing.name, target, relation))


def _named(kind: str, value: str) -> str:
    return f"{kind}:{value}" if value else ""


class _Growing:
    """A graph in the making: things and edges in the order in which they are met, each once."""

    def __init__(self) -> None:
        self._things: dict[str, Thing] = {}
        self._dependences: dict[Dependence, None] = {}

    def add(self, thing: Thing) -> None:
        """Add a thing, or its digest if it was met without one."""
        known = self._things.get(thing.name)
        if known is None or not known.digest:
            self._things[thing.name] = thing

    def join(self, edge: Dependence) -> None:
        """Add an edge."""
        self._dependences[edge] = None

    def done(self) -> LineageGraph:
        """The graph as it is."""
        return LineageGraph(tuple(self._things.values()), tuple(self._dependences))
