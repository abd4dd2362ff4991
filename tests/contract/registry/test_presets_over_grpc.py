"""Presets and sample pictures as a client meets them."""

from __future__ import annotations

import hashlib

import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from tests.contract.registry.running import Running, refused
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.test_samples import encoded, png_header

ADAPTER = "adapters/jiangnan"
PNG = encoded("PNG")


def preset(**fields: object) -> pb.Preset:
    """A right preset with fields replaced."""
    right: dict[str, object] = {
        "display_name": "Ink",
        "trigger_words": ["jnsty"],
        "prompt_template": "jnsty, {prompt}",
        "negative_prompt": "photo",
        "weight": 0.8,
    }
    return pb.Preset(**{**right, **fields})  # type: ignore[arg-type]  # one field a row


def presets(*entries: pb.Preset, adapter: str = ADAPTER, etag: str = "") -> pb.AdapterPresets:
    """Presets as a client writes them."""
    return pb.AdapterPresets(adapter=adapter, presets=entries, etag=etag)


def put(registry: Running, wanted: pb.AdapterPresets, request_id: str = "") -> pb.AdapterPresets:
    """SetPresets."""
    stored: pb.AdapterPresets = registry.api.SetPresets(pb.SetPresetsRequest(presets=wanted, request_id=request_id))
    return stored


@pytest.fixture(scope="module")
def stocked(module_registry: Running) -> Running:
    """A registry with one adapter, whose presets no bad input may change."""
    module_registry.publish(ADAPTER, adapter_bytes(rank=1))
    module_registry.publish("adapters/tea", adapter_bytes(rank=1))
    return module_registry


def test_presets_and_samples_are_read_as_they_were_set(registry: Running) -> None:
    registry.publish(ADAPTER, adapter_bytes(rank=1))
    nothing = registry.api.GetPresets(pb.GetPresetsRequest(adapter=ADAPTER))
    assert nothing == pb.AdapterPresets(adapter=ADAPTER)
    stored = put(registry, presets(preset(), preset(display_name="Bold", weight=1.2)), request_id="r1")
    assert put(registry, presets(preset(), preset(display_name="Bold", weight=1.2)), request_id="r1") == stored
    assert [entry.display_name for entry in stored.presets] == ["Ink", "Bold"]
    request = pb.AddSampleRequest(
        adapter=ADAPTER, picture=PNG, caption="a boat", version=f"{ADAPTER}/versions/1", request_id="r2"
    )
    sample = registry.api.AddSample(request)
    assert registry.api.AddSample(request) == sample
    assert (sample.media_type, sample.width, sample.height) == ("image/png", 40, 24)
    found = registry.api.GetPresets(pb.GetPresetsRequest(adapter=ADAPTER))
    assert (list(found.presets), list(found.samples)) == (list(stored.presets), [sample])
    answer = registry.api.GetSample(pb.GetSampleRequest(adapter=ADAPTER, digest=sample.digest))
    assert (answer.sample, answer.picture) == (sample, PNG)
    assert sample.digest == hashlib.sha256(PNG).hexdigest()


def test_a_sample_of_the_largest_size_goes_through(registry: Running) -> None:
    registry.publish(ADAPTER, adapter_bytes(rank=1))
    largest = PNG + b"\0" * (4 * 1024 * 1024 - len(PNG))
    sample = registry.api.AddSample(pb.AddSampleRequest(adapter=ADAPTER, picture=largest))
    answer = registry.api.GetSample(pb.GetSampleRequest(adapter=ADAPTER, digest=sample.digest))
    assert answer.picture == largest


def test_a_stale_etag_refuses_a_lost_update(registry: Running) -> None:
    registry.publish(ADAPTER, adapter_bytes(rank=1))
    read = put(registry, presets(preset()))
    put(registry, presets(etag=read.etag))
    with refused() as error:
        put(registry, presets(preset(), etag=read.etag))
    assert (error.code, error.reason) == ("ABORTED", "STORE_ETAG_MISMATCH")


@pytest.mark.parametrize(
    ("wanted", "code", "reason"),
    [
        (presets(adapter="adapters/none"), "NOT_FOUND", "ADAPTER_NOT_FOUND"),
        (presets(adapter="jiangnan"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (presets(preset(), preset()), "INVALID_ARGUMENT", "PRESET_DUPLICATE"),
        (presets(*[preset(display_name=str(number)) for number in range(17)]), "INVALID_ARGUMENT", "TOO_MANY"),
        (presets(preset(display_name="")), "INVALID_ARGUMENT", "TEXT_MISSING"),
        (presets(preset(trigger_words=["x"] * 17)), "INVALID_ARGUMENT", "TOO_MANY"),
        (presets(preset(prompt_template="jnsty")), "INVALID_ARGUMENT", "PRESET_TEMPLATE"),
        (presets(preset(negative_prompt="x" * 501)), "INVALID_ARGUMENT", "TEXT_TOO_LONG"),
        (presets(preset(weight=-2.5)), "INVALID_ARGUMENT", "OUT_OF_RANGE"),
        (presets(preset(weight=float("nan"))), "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ],
)
def test_bad_presets_are_refused_with_their_reason_and_nothing_is_set(
    stocked: Running, wanted: pb.AdapterPresets, code: str, reason: str
) -> None:
    with refused() as error:
        put(stocked, wanted)
    assert (error.code, error.reason) == (code, reason)
    assert not stocked.api.GetPresets(pb.GetPresetsRequest(adapter=ADAPTER)).presets


@pytest.mark.parametrize(
    ("request_message", "code", "reason"),
    [
        (pb.AddSampleRequest(adapter="adapters/none", picture=PNG), "NOT_FOUND", "ADAPTER_NOT_FOUND"),
        (pb.AddSampleRequest(adapter="jiangnan", picture=PNG), "INVALID_ARGUMENT", "INVALID_NAME"),
        (pb.AddSampleRequest(adapter=ADAPTER), "INVALID_ARGUMENT", "SAMPLE_INVALID"),
        (pb.AddSampleRequest(adapter=ADAPTER, picture=b"<svg/>"), "INVALID_ARGUMENT", "SAMPLE_INVALID"),
        (
            pb.AddSampleRequest(adapter=ADAPTER, picture=png_header(50_000, 50_000)),
            "INVALID_ARGUMENT",
            "SAMPLE_TOO_MANY_PIXELS",
        ),
        (
            pb.AddSampleRequest(adapter=ADAPTER, picture=PNG + b"\0" * (4 * 1024 * 1024)),
            "INVALID_ARGUMENT",
            "SAMPLE_TOO_LARGE",
        ),
        (pb.AddSampleRequest(adapter=ADAPTER, picture=PNG, caption="x" * 501), "INVALID_ARGUMENT", "TEXT_TOO_LONG"),
        (
            pb.AddSampleRequest(adapter=ADAPTER, picture=PNG, version="adapters/tea/versions/1"),
            "INVALID_ARGUMENT",
            "SAMPLE_OF_ANOTHER_ADAPTER",
        ),
        (
            pb.AddSampleRequest(adapter=ADAPTER, picture=PNG, version=f"{ADAPTER}/versions/9"),
            "NOT_FOUND",
            "VERSION_NOT_FOUND",
        ),
        (pb.AddSampleRequest(adapter=ADAPTER, picture=PNG, version=ADAPTER), "INVALID_ARGUMENT", "INVALID_NAME"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_sample_is_refused_with_its_reason_and_nothing_is_kept(
    stocked: Running, request_message: pb.AddSampleRequest, code: str, reason: str
) -> None:
    with refused() as error:
        stocked.api.AddSample(request_message)
    assert (error.code, error.reason) == (code, reason)
    assert not stocked.api.GetPresets(pb.GetPresetsRequest(adapter=ADAPTER)).samples


@pytest.mark.parametrize(
    ("adapter", "digest", "code", "reason"),
    [
        (ADAPTER, "a" * 64, "NOT_FOUND", "SAMPLE_NOT_FOUND"),
        (ADAPTER, "../a", "INVALID_ARGUMENT", "INVALID_DIGEST"),
        ("adapters/none", "a" * 64, "NOT_FOUND", "ADAPTER_NOT_FOUND"),
        ("none", "a" * 64, "INVALID_ARGUMENT", "INVALID_NAME"),
    ],
)
def test_a_sample_that_is_not_kept_is_refused_with_its_reason(
    stocked: Running, adapter: str, digest: str, code: str, reason: str
) -> None:
    with refused() as error:
        stocked.api.GetSample(pb.GetSampleRequest(adapter=adapter, digest=digest))
    assert (error.code, error.reason) == (code, reason)


def test_presets_of_an_unknown_adapter_are_not_found(stocked: Running) -> None:
    with refused() as error:
        stocked.api.GetPresets(pb.GetPresetsRequest(adapter="adapters/none"))
    assert (error.code, error.reason) == ("NOT_FOUND", "ADAPTER_NOT_FOUND")
