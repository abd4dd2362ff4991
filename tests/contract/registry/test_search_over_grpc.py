"""Searches and look-ups over gRPC, bad input included."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.registry.v1 import region_pb2
from terroir._proto.registry.v1 import registry_pb2 as pb
from tests.contract.registry.running import Running, refused
from tests.unit.registry.adapter_kit import adapter_bytes


@pytest.fixture(scope="module")
def stocked(module_registry: Running) -> Running:
    """Three adapters with all that can be searched for."""
    publish = module_registry.publish
    jiangnan = {
        "tags": ["ink", "garden"],
        "region": "regions/330106",
        "trigger_word": "jnsty",
        "metrics": {"style_similarity": 0.8},
        "description": "Soft INK of Hangzhou",
    }
    sichuan = {"tags": ["ink"], "region": "regions/CN-SC", "metrics": {"style_similarity": 0.5}}
    publish("adapters/jiangnan", adapter_bytes(4, 1), **jiangnan)
    publish("adapters/sichuan", adapter_bytes(4, 2), **sichuan)
    publish("adapters/hebei", adapter_bytes(4, 3))
    module_registry.set_alias("production", 1)
    module_registry.regions.PutRegion(
        region_pb2.PutRegionRequest(region=region_pb2.Region(name="regions/CN", display_name="China"))
    )
    return module_registry


def found(registry: Running, **fields: Any) -> list[str]:
    conditions = pb.AdapterFilter(**fields)
    answer = registry.api.ListAdapters(pb.ListAdaptersRequest(filter=conditions), timeout=10)
    return [adapter.name.removeprefix("adapters/") for adapter in answer.adapters]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["hebei", "jiangnan", "sichuan"]),
        ({"query": "soft ink"}, ["jiangnan"]),
        ({"query": "JNST"}, ["jiangnan"]),
        ({"query": "chuan"}, ["sichuan"]),
        ({"region": "regions/CN-ZJ"}, ["jiangnan"]),
        ({"region": "regions/cn"}, ["jiangnan", "sichuan"]),
        ({"region": "regions/330106"}, ["jiangnan"]),
        ({"region": "regions/330107"}, []),
        ({"base": "bases/tiny"}, ["hebei", "jiangnan", "sichuan"]),
        ({"base": "bases/other"}, []),
        ({"tags": ["ink"]}, ["jiangnan", "sichuan"]),
        ({"tags": ["ink", "garden"]}, ["jiangnan"]),
        ({"trigger_word": "jnsty"}, ["jiangnan"]),
        ({"alias": "production"}, ["jiangnan"]),
        ({"published_after": Timestamp(seconds=1)}, ["hebei", "jiangnan", "sichuan"]),
        ({"published_before": Timestamp(seconds=1)}, []),
        ({"metrics": [pb.MetricBound(metric="style_similarity", minimum=0.5)]}, ["jiangnan", "sichuan"]),
        ({"metrics": [pb.MetricBound(metric="style_similarity", minimum=0.6)]}, ["jiangnan"]),
        ({"metrics": [pb.MetricBound(metric="style_similarity", maximum=0.5)]}, ["sichuan"]),
        ({"metrics": [pb.MetricBound(metric="never_measured")]}, []),
    ],
)
def test_a_filter_finds_what_meets_all_of_it(stocked: Running, fields: dict[str, object], expected: list[str]) -> None:
    assert found(stocked, **fields) == expected


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"query": "x" * 201}, "TEXT_TOO_LONG", "filter.query"),
        ({"query": "a\x00b"}, "CONTROL_CHARACTERS", "filter.query"),
        ({"region": "CN"}, "INVALID_NAME", "filter.region"),
        ({"base": "tiny"}, "INVALID_NAME", "filter.base"),
        ({"alias": "No Alias"}, "INVALID_IDENTIFIER", "filter.alias"),
        ({"tags": ["Ink"]}, "INVALID_TAG", "filter.tags[0]"),
        ({"tags": ["ink"] * 33}, "FILTER_TOO_LARGE", "filter.tags"),
        ({"metrics": [pb.MetricBound(metric="Loss")]}, "INVALID_METRIC", "filter.metrics[0].metric"),
        ({"metrics": [pb.MetricBound(metric="a")] * 17}, "FILTER_TOO_LARGE", "filter.metrics"),
        ({"metrics": [pb.MetricBound(metric="a", minimum=math.nan)]}, "OUT_OF_RANGE", "filter.metrics[0]"),
        ({"metrics": [pb.MetricBound(metric="a", minimum=1, maximum=0)]}, "OUT_OF_RANGE", "filter.metrics[0]"),
        ({"published_after": Timestamp(seconds=10**15)}, "INVALID_TIME", "filter.published_after"),
        (
            {"published_after": Timestamp(seconds=9), "published_before": Timestamp(seconds=1)},
            "OUT_OF_RANGE",
            "filter.published_after",
        ),
    ],
)
def test_a_bad_filter_is_refused_with_its_field(
    module_registry: Running, fields: dict[str, object], reason: str, field: str
) -> None:
    with refused() as caught:
        found(module_registry, **fields)
    assert (caught.code, caught.reason) == ("INVALID_ARGUMENT", reason)
    assert caught.found is not None
    assert caught.found.field == field


def test_a_page_token_belongs_to_its_filter(stocked: Running) -> None:
    ask = stocked.api.ListAdapters
    inked = pb.AdapterFilter(tags=["ink"])
    first = ask(pb.ListAdaptersRequest(page_size=1, filter=inked))
    second = ask(pb.ListAdaptersRequest(page_size=1, filter=inked, page_token=first.next_page_token))
    assert [each.name for each in (*first.adapters, *second.adapters)] == ["adapters/jiangnan", "adapters/sichuan"]
    assert second.next_page_token == ""
    with refused() as caught:
        ask(pb.ListAdaptersRequest(page_size=1, page_token=first.next_page_token))
    assert caught.reason == "INVALID_PAGE_TOKEN"


def test_a_version_is_found_by_any_of_its_hashes_in_any_case_and_length(stocked: Running) -> None:
    version = stocked.api.GetVersion(pb.GetVersionRequest(name="adapters/jiangnan"))
    known = [version.file_digest, version.upload_digest, version.tensor_digest, *version.hashes.values()]
    for digest in known:
        for asked in (digest, digest[:10], digest[:8].upper()):
            answer = stocked.api.FindByHash(pb.FindByHashRequest(hash=asked))
            assert version.name in [each.name for each in answer.versions]
    other = known[0][:8] + ("0" if known[0][8] != "0" else "1")
    assert list(stocked.api.FindByHash(pb.FindByHashRequest(hash=other)).versions) == []


@pytest.mark.parametrize("digits", ["", "1234567", "g" * 8, "a" * 65, "a" * 100_000, "../../etc"])
def test_a_bad_hash_is_refused(module_registry: Running, digits: str) -> None:
    with refused() as caught:
        module_registry.api.FindByHash(pb.FindByHashRequest(hash=digits))
    assert (caught.code, caught.reason) == ("INVALID_ARGUMENT", "INVALID_HASH")


def test_a_deprecated_newest_version_is_found_only_on_request(registry: Running) -> None:
    registry.publish("adapters/jiangnan", adapter_bytes(4, 1))
    registry.api.DeprecateVersion(
        pb.DeprecateVersionRequest(name="adapters/jiangnan/versions/1", reason="too dark", request_id="d1")
    )
    assert found(registry) == []
    assert found(registry, include_deprecated=True) == ["jiangnan"]
    registry.publish("adapters/jiangnan", adapter_bytes(4, 2))
    assert found(registry) == ["jiangnan"]


def test_a_sticky_key_keeps_its_side_of_a_canary_and_none_gets_the_old_version(registry: Running) -> None:
    registry.publish("adapters/jiangnan", adapter_bytes(4, 1))
    registry.publish("adapters/jiangnan", adapter_bytes(4, 2))
    name = "adapters/jiangnan/versions/"
    registry.api.SetAlias(
        pb.SetAliasRequest(
            adapter="adapters/jiangnan",
            alias="staging",
            version=name + "1",
            canary=pb.Canary(version=name + "2", percent=30),
            request_id="c1",
        )
    )

    def side(key: str, *, strong: bool = False) -> str:
        request = pb.GetVersionRequest(name="adapters/jiangnan@staging", sticky_key=key, strong=strong)
        return str(registry.api.GetVersion(request, timeout=10).name)

    sides = [side(f"caller-{number}") for number in range(200)]
    assert 30 <= sides.count(name + "2") <= 90
    assert sides == [side(f"caller-{number}", strong=True) for number in range(200)]
    assert side("") == name + "1"
    with refused() as caught:
        side("x" * 257)
    assert caught.reason == "TEXT_TOO_LONG"
