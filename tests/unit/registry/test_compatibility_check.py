"""Comparing published versions: refusals, the cache by tensors, and what damage or a read-only store does to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from terroir.common.errors import InvalidArgument
from terroir.common.principal import Principal, Role
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.compatibility import compare
from terroir.lora.formats import to_kohya
from terroir.registry import compatibility
from terroir.registry.compatibility import ALGORITHM, CompatibilityCheck
from terroir.registry.errors import AdapterNotFound, BasesDiffer, NotComparable
from terroir.registry.names import VersionRef
from terroir.registry.publishing import Publisher, PublishRequest
from terroir.registry.versions import Version
from terroir.store.errors import StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.adapter_kit import make_adapter, make_loha
from tests.unit.registry.base_kit import write_base_folder
from tests.unit.registry.domain_kit import Domain, open_domain

PUBLISHER = Principal("local:test", frozenset({Role.PUBLISHER}))


class Registry:
    """A domain with one base and a check that counts what it reads and writes."""

    def __init__(self, domain: Domain, folder: Path) -> None:
        self.domain = domain
        for seed, name in enumerate(("tiny", "other")):
            domain.bases.register_folder(name, write_base_folder(folder / name, seed))
        self.publisher = Publisher(domain.bases, domain.versions, domain.blobs, 1 << 20)
        self.check = CompatibilityCheck(domain.store, domain.adapters, domain.bases)

    def publish(self, name: str, adapter: Adapter, base: str = "tiny", trigger: str = "") -> Version:
        data = to_kohya(adapter, {})
        request = PublishRequest(name, base, "", len(data), hashlib.sha256(data).hexdigest(), trigger)
        return self.publisher.publish(request, data, PUBLISHER, op_id=f"{name}-{trigger}-{request.file_digest}")

    def entries(self) -> list[str]:
        return list(self.domain.store.list("compat"))


@pytest.fixture
def registry(domain: Domain, tmp_path: Path) -> Registry:
    found = Registry(domain, tmp_path)
    for seed, name in enumerate("abc"):
        found.publish(name, make_adapter(rank=2 + seed, seed=seed))
    return found


def refs(*names: str) -> list[VersionRef]:
    return [VersionRef(name) for name in names]


def refuse_blobs(monkeypatch: pytest.MonkeyPatch, check: CompatibilityCheck) -> None:
    """From now on whoever reads an adapter file fails the test."""
    monkeypatch.setattr(check, "_load", lambda version: pytest.fail(f"{version.name} was read"))


def test_every_pair_is_compared_in_order_of_the_request(registry: Registry) -> None:
    found = registry.check.check(refs("c", "a", "b"))
    assert [(p.first.adapter, p.second.adapter) for p in found.pairs] == [("c", "a"), ("c", "b"), ("a", "b")]
    expected = compare(make_adapter(4, 2), make_adapter(2, 0))
    assert found.pairs[0].overlap.cosine == pytest.approx(expected.cosine, abs=1e-6)
    assert found.pairs[0].overlap.first_norm == pytest.approx(expected.first_norm)
    assert found.level == max(pair.level for pair in found.pairs)
    assert all(0 <= pair.interference <= 1 for pair in found.pairs)


def test_a_loha_is_refused_by_name_of_the_layer(registry: Registry) -> None:
    registry.publish("d", make_loha(rank=2))
    with pytest.raises(NotComparable, match=r"attn.*loha.*sample pictures") as caught:
        registry.check.check(refs("a", "d"))
    assert caught.value.reason == "ADAPTER_NOT_COMPARABLE"


def test_suggested_weights_keep_the_change_as_large_as_the_strongest_alone(registry: Registry) -> None:
    found = registry.check.check(refs("a", "b", "c"))
    deltas = [
        np.concatenate([module.delta().ravel() for _, module in sorted(make_adapter(2 + seed, seed).modules.items())])
        for seed in range(3)
    ]
    stacked = sum(weight * delta for weight, delta in zip(found.suggested_weights, deltas, strict=True))
    assert np.linalg.norm(stacked) == pytest.approx(max(np.linalg.norm(delta) for delta in deltas), rel=1e-4)


def test_a_pair_is_compared_once_whatever_its_order_and_replica(
    registry: Registry, replica: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.check.check(refs("a", "b"))
    other = CompatibilityCheck(replica.store, replica.adapters, replica.bases)
    for check in (registry.check, other):
        refuse_blobs(monkeypatch, check)
        again = check.check(refs("b", "a"))
        assert again.pairs[0].overlap == first.pairs[0].overlap.reversed
        assert again.suggested_weights == first.suggested_weights
    assert len(registry.entries()) == 1


def test_another_header_around_the_same_tensors_meets_the_same_entry(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.check.check(refs("a", "b"))
    assert registry.publish("a", make_adapter(rank=2, seed=0), trigger="another header").number == 2
    refuse_blobs(monkeypatch, registry.check)
    assert registry.check.check(refs("a", "b")).pairs[0].first.number == 2


def test_equal_tensors_under_two_names_are_the_same_style_twice(registry: Registry) -> None:
    registry.publish("twin", make_adapter(rank=2, seed=0))
    found = registry.check.check(refs("a", "twin"))
    assert found.pairs[0].overlap.cosine == pytest.approx(1)
    assert found.suggested_weights == pytest.approx((0.5, 0.5))


def test_adapters_that_share_no_layer_are_compared_as_such(registry: Registry) -> None:
    modules = make_adapter(rank=2).modules
    for number, (layer, module) in enumerate(sorted(modules.items())[:2]):
        registry.publish(f"part-{number}", Adapter({layer: module}))
    (pair,) = registry.check.check(refs("part-0", "part-1")).pairs
    assert (pair.overlap.shared_layers, pair.overlap.layers, pair.overlap.cosine) == (0, 2, 0)


def test_a_change_of_nothing_stacks_with_everything(registry: Registry) -> None:
    nothing = {k: LoraModule(m.down, np.zeros_like(m.up), m.alpha) for k, m in make_adapter(rank=2).modules.items()}
    registry.publish("nothing", Adapter(nothing))
    found = registry.check.check(refs("a", "nothing"))
    assert found.pairs[0].overlap.cosine == 0
    assert found.suggested_weights == pytest.approx((1, 1))


@pytest.mark.parametrize("names", [(), ("a",), tuple("abcabcabc")])
def test_fewer_than_two_or_more_than_eight_are_refused(registry: Registry, names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="name 2 to 8") as error:
        registry.check.check(refs(*names))
    assert error.value.reason == "COMPATIBILITY_COUNT"


def test_a_version_that_is_named_twice_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidArgument, match="named twice") as error:
        registry.check.check([VersionRef("a"), VersionRef("b"), VersionRef("a", number=1)])
    assert error.value.reason == "COMPATIBILITY_TWICE"


def test_adapters_of_different_bases_are_refused_by_name(registry: Registry) -> None:
    registry.publish("abroad", make_adapter(rank=2, seed=9), base="other")
    with pytest.raises(BasesDiffer, match="bases/other") as error:
        registry.check.check(refs("a", "b", "abroad"))
    assert error.value.metadata == {"first": "adapters/a/versions/1", "second": "adapters/abroad/versions/1"}
    assert registry.entries() == []


def test_an_unknown_adapter_is_named(registry: Registry) -> None:
    with pytest.raises(AdapterNotFound, match="adapters/none"):
        registry.check.check(refs("a", "none"))


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff{",
        b"[]",
        b"{}",
        json.dumps({"algorithm": "0", "overlap": {}}).encode(),
        json.dumps({"algorithm": ALGORITHM, "overlap": {"inner": 1}}).encode(),
    ],
)
def test_a_damaged_entry_is_computed_and_written_anew(registry: Registry, damage: bytes) -> None:
    first = registry.check.check(refs("a", "b"))
    (key,) = registry.entries()
    whole = registry.domain.store.get(key)
    registry.domain.store.put(key, damage)
    assert registry.check.check(refs("a", "b")) == first
    assert registry.domain.store.get(key) == whole


def test_entries_that_are_not_numbers_are_computed_anew(registry: Registry) -> None:
    first = registry.check.check(refs("a", "b"))
    (key,) = registry.entries()
    body = json.loads(registry.domain.store.get(key))
    for wrong in (float("nan"), None, "x"):
        body["overlap"]["inner"] = wrong
        registry.domain.store.put(key, json.dumps(body).encode())
        assert registry.check.check(refs("a", "b")) == first


def test_a_store_that_refuses_the_entry_does_not_withhold_the_answer(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(key: str, body: bytes) -> None:
        raise StoreUnavailable("the disk is full", key, "STORE_DISK_FULL")

    monkeypatch.setattr(registry.domain.store, "create", full)
    assert len(registry.check.check(refs("a", "b")).pairs) == 1
    assert registry.entries() == []


def test_more_files_than_memory_allows_are_compared_pair_by_pair(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = registry.check.check(refs("a", "b", "c"))
    for key in registry.entries():
        registry.domain.store.delete(key)
    monkeypatch.setattr(compatibility, "_MEMORY_BYTES", 1)
    found = registry.check.check(refs("a", "b", "c"))
    assert [pair.overlap for pair in found.pairs] == [pair.overlap for pair in whole.pairs]


def test_the_entry_is_written_once_when_two_replicas_compare_at_a_time(tmp_path: Path) -> None:
    """The loser of the race answers with its own, equal figures."""
    store: ObjectStore = MemoryStore()
    registry = Registry(open_domain(store), tmp_path)
    for seed, name in enumerate("ab"):
        registry.publish(name, make_adapter(rank=2, seed=seed))
    winner = CompatibilityCheck(store, registry.domain.adapters, registry.domain.bases)
    load = registry.check._load

    def overtaken(version: Version) -> Adapter:
        winner.check(refs("a", "b"))
        return load(version)

    registry.check._load = overtaken  # type: ignore[method-assign]
    assert registry.check.check(refs("a", "b")) == winner.check(refs("a", "b"))
    assert len(registry.entries()) == 1
