"""Regions as they lie in one another, to be drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.registry.regions.codes import folds, same


@dataclass(frozen=True)
class Node:
    """A region and what lies in it, by code."""

    region: pb.Region
    children: list[Node] = field(default_factory=list)


def forest(regions: Iterable[pb.Region]) -> list[Node]:
    """Roots, by code: regions that lie in none of the others, by what was said or by how their codes are spelled."""
    nodes = {same(_code(region.name)): Node(region) for region in sorted(regions, key=lambda region: region.name)}
    roots: list[Node] = []
    for key, node in nodes.items():
        above = nodes.get(_above(node.region, nodes.keys()) or "")
        (roots if above is None or above is nodes[key] else above.children).append(node)
    return roots


def _above(region: pb.Region, known: Iterable[str]) -> str | None:
    if region.parent:
        return same(_code(region.parent))
    return next((same(code) for code in folds(_code(region.name)) if same(code) in known), None)


def _code(name: str) -> str:
    return name.removeprefix("regions/")
