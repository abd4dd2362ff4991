"""A version is followed back to what it was made of, and forward to whom it concerns."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.common.principal import Principal, Role
from terroir.registry.errors import AdapterNotFound, AliasNotFound
from terroir.registry.lineage import MAX_VERSIONS, LineageGraph, Lineages
from terroir.registry.moving.aliases import Move
from terroir.registry.moving.state import Canary
from terroir.registry.names import parse_reference
from terroir.registry.versions import Lineage
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.domain_kit import Domain, open_domain

ANA = Principal("local:ana", frozenset({Role.PUBLISHER}))
TRAINED = Lineage(
    job="jobs/j1",
    dataset_version="datasets/tea/versions/2",
    dataset_digest="a" * 64,
    config_digest="c" * 64,
    code_version="0.1.0",
    checkpoint="jobs/j1/checkpoints/600",
)


@pytest.fixture
def indexed(store: ObjectStore) -> Domain:
    """A replica whose reads come from the index."""
    return open_domain(store, indexed=True)


def around(domain: Domain, name: str) -> LineageGraph:
    """The graph around a version."""
    return Lineages(domain.adapters, domain.live.index, domain.clock).around(parse_reference(name))


def edges(graph: LineageGraph) -> set[tuple[str, str, str]]:
    """Edges as (source, relation, target), adapters in short."""
    short = {"adapters/": "", "/versions/": " v"}
    told = set()
    for edge in graph.dependences:
        source, target = edge.source, edge.target
        for long, brief in short.items():
            source, target = source.replace(long, brief), target.replace(long, brief)
        told.add((source, edge.relation, target))
    return told


def test_a_trained_version_is_followed_to_its_dataset_configuration_code_base_checkpoint_and_job(
    indexed: Domain,
) -> None:
    indexed.publish("jiangnan", "a", lineage=TRAINED)
    graph = around(indexed, "adapters/jiangnan")
    assert graph.things[0].name == "adapters/jiangnan/versions/1"
    assert edges(graph) == {
        ("bases/tiny", "based_on", "jiangnan v1"),
        ("datasets/tea v2", "trained_on", "jiangnan v1"),
        ("jobs/j1/checkpoints/600", "made_by", "jiangnan v1"),
        ("jobs/j1", "made_by", "jobs/j1/checkpoints/600"),
        (f"config:{'c' * 64}", "configured_by", "jobs/j1"),
        ("code:0.1.0", "ran", "jobs/j1"),
    }
    assert {thing.kind: thing.digest[:1] for thing in graph.things} == {
        "adapter_version": "f",
        "base": "b",
        "dataset_version": "a",
        "checkpoint": "",
        "job": "",
        "config": "c",
        "code": "",
    }


def test_an_uploaded_file_has_its_base_alone(indexed: Domain) -> None:
    indexed.publish("jiangnan", "a", lineage=Lineage())
    assert edges(around(indexed, "adapters/jiangnan")) == {("bases/tiny", "based_on", "jiangnan v1")}


def test_parents_are_followed_to_their_data_and_children_to_their_aliases(indexed: Domain) -> None:
    indexed.publish("old", "a", lineage=TRAINED)
    indexed.publish("middle", "b", lineage=Lineage(parent="adapters/old/versions/1"))
    indexed.publish("young", "c", lineage=Lineage(parent="adapters/middle/versions/1"))
    indexed.publish("cousin", "d", lineage=Lineage(parent="adapters/old/versions/1"))
    indexed.adapters.set_alias(Move("young", "production", 1, "good"), ANA, op_id="e")
    indexed.adapters.set_alias(Move("old", "production", 1, "good"), ANA, op_id="f")
    told = edges(around(indexed, "adapters/middle"))
    assert told >= {
        ("old v1", "continued_from", "middle v1"),
        ("datasets/tea v2", "trained_on", "old v1"),
        ("middle v1", "continued_from", "young v1"),
        ("young v1", "points_at", "young@production"),
    }
    named = {name for source, _, target in told for name in (source, target)}
    assert not named & {"cousin v1", "old@production"}
    from_the_top = {target for _, relation, target in edges(around(indexed, "adapters/old")) if relation == "points_at"}
    assert from_the_top == {"old@production", "young@production"}


def test_a_canary_tries_a_version_until_it_ends(indexed: Domain) -> None:
    for op_id in ("a", "b"):
        indexed.publish("jiangnan", op_id)
    ends = (indexed.clock.now() + timedelta(hours=1)).isoformat()
    indexed.adapters.set_alias(Move("jiangnan", "production", 1, "try", Canary(2, 5, ends)), ANA, op_id="c")
    assert ("jiangnan v2", "tries", "jiangnan@production") in edges(around(indexed, "adapters/jiangnan/versions/2"))
    assert ("jiangnan v1", "points_at", "jiangnan@production") in edges(around(indexed, "adapters/jiangnan/versions/1"))
    indexed.clock.advance(3601)
    assert not any(relation == "tries" for _, relation, _ in edges(around(indexed, "adapters/jiangnan")))


@pytest.mark.parametrize("parent", ["adapters/elsewhere/versions/7", "adapters/jiangnan/versions/9", "by hand"])
def test_a_parent_that_is_not_here_is_told_without_a_digest(indexed: Domain, parent: str) -> None:
    indexed.publish("jiangnan", "a", lineage=Lineage(parent=parent))
    (thing,) = [thing for thing in around(indexed, "adapters/jiangnan").things if thing.name == parent]
    assert (thing.kind, thing.digest) == ("adapter_version", "")


def test_versions_that_claim_each_other_as_parents_end_the_walk(indexed: Domain) -> None:
    indexed.publish("hen", "a", lineage=Lineage(parent="adapters/egg/versions/1"))
    indexed.publish("egg", "b", lineage=Lineage(parent="adapters/hen/versions/1"))
    assert edges(around(indexed, "adapters/hen")) >= {
        ("egg v1", "continued_from", "hen v1"),
        ("hen v1", "continued_from", "egg v1"),
    }


def test_another_replicas_children_are_known_once_the_index_has_read_them(indexed: Domain, store: ObjectStore) -> None:
    indexed.publish("old", "a")
    open_domain(store).publish("young", "b", lineage=Lineage(parent="adapters/old/versions/1"))
    indexed.live.refresh()
    assert ("old v1", "continued_from", "young v1") in edges(around(indexed, "adapters/old"))


def test_a_family_that_is_too_large_is_cut_the_farthest_first() -> None:
    domain = open_domain(MemoryStore(), indexed=True)
    domain.publish("root", "root")
    for number in range(MAX_VERSIONS + 5):
        domain.publish("child", f"c{number}", lineage=Lineage(parent="adapters/root/versions/1"))
    domain.publish("grandchild", "g", lineage=Lineage(parent="adapters/child/versions/1"))
    graph = around(domain, "adapters/root")
    versions = [thing for thing in graph.things if thing.kind == "adapter_version"]
    assert len(versions) == MAX_VERSIONS
    assert not any("grandchild" in thing.name for thing in versions)


def test_what_does_not_exist_is_refused(indexed: Domain) -> None:
    with pytest.raises(AdapterNotFound):
        around(indexed, "adapters/none")
    indexed.publish("jiangnan", "a")
    with pytest.raises(AliasNotFound):
        around(indexed, "adapters/jiangnan@none")


@settings(deadline=None)  # a busy machine
@given(st.lists(st.integers(min_value=-1, max_value=11), min_size=1, max_size=12), st.data())
def test_every_edge_joins_things_that_are_told_and_each_thing_is_told_once(
    parents: list[int], data: st.DataObject
) -> None:
    """Version n has the parent that is drawn for it: any earlier or later one, itself, one that is missing, or none."""
    domain = open_domain(MemoryStore(), indexed=True)
    for number, parent in enumerate(parents, 1):
        lineage = replace(TRAINED, parent=f"adapters/a/versions/{parent + 1}" if parent >= 0 else "")
        domain.publish("a", f"op {number}", lineage=lineage)
    start = data.draw(st.integers(min_value=1, max_value=len(parents)))
    graph = around(domain, f"adapters/a/versions/{start}")
    names = [thing.name for thing in graph.things]
    assert names[0] == f"adapters/a/versions/{start}"
    assert len(set(names)) == len(names)
    assert {name for edge in graph.dependences for name in list(asdict(edge).values())[:2]} <= set(names)
    ancestor, behind = start, set()
    while parents[ancestor - 1] >= 0 and ancestor not in behind:
        behind.add(ancestor)
        ancestor = parents[ancestor - 1] + 1
        assert f"adapters/a/versions/{ancestor}" in names
        if ancestor > len(parents):
            break
