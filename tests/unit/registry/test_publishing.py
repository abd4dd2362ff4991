"""Publishing: every check comes before the version, and what breaks half-way is never seen."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument, PermissionDenied
from terroir.common.principal import Principal, Role
from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter
from terroir.lora.formats import parse, to_diffusers, to_kohya
from terroir.lora.hashes import site_hashes
from terroir.lora.key_table import key_table_of
from terroir.registry.adapter_file import BASE_DIGEST_KEY, read_adapter_file
from terroir.registry.downloads import AdapterFormat, Downloads
from terroir.registry.errors import (
    AdapterFileInvalid,
    BaseMismatch,
    FormatUnavailable,
    TrainingPrintNotFound,
    UploadInvalid,
)
from terroir.registry.names import VersionRef
from terroir.registry.publishing import Publisher, PublishRequest
from terroir.registry.versions import UPLOAD_LABEL, Lineage, StoredFile
from terroir.scoring.training_print import TrainingPrintInvalid
from terroir.store.errors import OperationConflict, StoreUnavailable
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.adapter_kit import adapter_bytes, make_adapter, make_loha
from tests.unit.registry.base_kit import TEXT_SHAPES, UNET_SHAPES, write_base_folder
from tests.unit.registry.domain_kit import Domain, open_domain
from tests.unit.scoring.print_kit import made_up

NEWEST = VersionRef("jiangnan")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
MAX_BYTES = 1024 * 1024
ANA = Principal("local:ana", frozenset({Role.PUBLISHER}))
VI = Principal("local:vi", frozenset({Role.VIEWER}))
TABLE = key_table_of(UNET_SHAPES, TEXT_SHAPES)


def request_for(data: bytes, adapter: str = "jiangnan") -> PublishRequest:
    """A right request for a file."""
    digest = hashlib.sha256(data).hexdigest()
    return PublishRequest(adapter, "tiny", "", len(data), digest, "jnsty", Lineage("jobs/a"), {"mood": "wet"})


def publisher_of(domain: Domain, folder: Path) -> Publisher:
    """A publisher whose domain knows the hand-written base."""
    domain.bases.register_folder("tiny", folder)
    return Publisher(domain.bases, domain.versions, domain.blobs, MAX_BYTES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good base folder."""
    return write_base_folder(tmp_path / "base")


@pytest.fixture
def publisher(domain: Domain, folder: Path) -> Publisher:
    """A publisher on each store."""
    return publisher_of(domain, folder)


def test_every_format_holds_the_uploaded_tensors(domain: Domain, publisher: Publisher) -> None:
    data = adapter_bytes(rank=3)
    manifest = publisher.publish(request_for(data), data, ANA, op_id="a").manifest
    for adapter_format in AdapterFormat:
        download = Downloads(domain.adapters, domain.bases, domain.blobs).open(NEWEST, adapter_format)
        got = b"".join(download.chunks)
        assert (hashlib.sha256(got).hexdigest(), len(got)) == (download.file.digest, download.file.size_bytes)
        assert parse(got, TABLE).adapter.tensor_digest() == manifest.tensor_digest
    assert (manifest.rank, manifest.matched_layers, manifest.ignored) == (3, 3, ())


def test_a_loha_is_published_with_a_kohya_file_only(domain: Domain, publisher: Publisher) -> None:
    data = to_kohya(make_loha(rank=2), {})
    version = publisher.publish(request_for(data), data, ANA, op_id="a")
    downloads = Downloads(domain.adapters, domain.bases, domain.blobs)
    got = b"".join(downloads.open(NEWEST, AdapterFormat.KOHYA).chunks)
    assert parse(got, TABLE).adapter.tensor_digest() == version.manifest.tensor_digest
    assert (version.manifest.rank, version.manifest.matched_layers, "diffusers" in version.manifest.hashes) == (
        2,
        3,
        False,
    )
    with pytest.raises(FormatUnavailable, match="kohya file") as caught:
        downloads.open(NEWEST, AdapterFormat.DIFFUSERS)
    assert (caught.value.reason, caught.value.metadata) == ("ADAPTER_NOT_IN_DIFFUSERS", {"version": version.name})


def test_one_adapter_has_one_file_whatever_spelling_it_came_in(publisher: Publisher) -> None:
    adapter = make_adapter(rank=2, seed=1)
    kohya, diffusers = to_kohya(adapter, {"ss_dataset_dirs": '{"/home/ana": 3}'}), to_diffusers(adapter)
    first = publisher.publish(request_for(kohya), kohya, ANA, op_id="a")
    second = publisher.publish(request_for(diffusers), diffusers, ANA, op_id="b")
    assert first.manifest.kohya == second.manifest.kohya
    assert (first.manifest.upload_format, second.manifest.upload_format) == ("kohya", "diffusers")
    assert second.visible_labels() == {"mood": "wet", UPLOAD_LABEL: request_for(diffusers).file_digest}


def test_the_stored_file_says_nothing_of_the_uploaders_folders(domain: Domain, publisher: Publisher) -> None:
    data = to_kohya(make_adapter(rank=2), {"ss_dataset_dirs": '{"/home/ana": 3}'})
    version = publisher.publish(request_for(data), data, ANA, op_id="a")
    assert b"/home/ana" not in domain.blobs.get(version.manifest.kohya.digest)


def test_keys_that_the_base_does_not_have_are_recorded_with_a_reason(publisher: Publisher) -> None:
    known, extra = make_adapter(rank=1), make_adapter(rank=1, layers={"unet.mid_block.far": (4, 4)})
    data = to_kohya(Adapter({**known.modules, **extra.modules}), {})
    manifest = publisher.publish(request_for(data), data, ANA, op_id="a").manifest
    assert manifest.matched_layers == 3
    assert {key.partition(".")[0] for key, _ in manifest.unknown} == {"lora_unet_mid_block_far"}
    assert all(reason for _, reason in manifest.unknown) and manifest.ignored == ()


def test_a_retry_publishes_once_and_another_file_under_its_id_is_an_error(domain: Domain, publisher: Publisher) -> None:
    data, other = adapter_bytes(rank=1), adapter_bytes(rank=1, seed=9)
    first = publisher.publish(request_for(data), data, ANA, op_id="a")
    domain.clock.advance(60)
    assert publisher.publish(request_for(data), data, ANA, op_id="a") == first
    with pytest.raises(OperationConflict):
        publisher.publish(request_for(other), other, ANA, op_id="a")
    with pytest.raises(OperationConflict):
        publisher.publish(replace(request_for(data), trigger_word="other"), data, ANA, op_id="a")
    assert domain.versions.newest("jiangnan") == first


PRINT = made_up().to_bytes()


def test_a_training_print_is_kept_with_its_version_and_a_version_without_one_has_none(
    domain: Domain, publisher: Publisher
) -> None:
    data, downloads = adapter_bytes(rank=1), Downloads(domain.adapters, domain.bases, domain.blobs)
    plain, printed = request_for(data), replace(request_for(data), training_print=PRINT)
    for request in (plain, printed):
        publisher.admit(request, ANA)
    without = publisher.publish(plain, data, ANA, op_id="a")
    version = publisher.publish(printed, data, ANA, op_id="b")
    assert version.manifest.training_print == StoredFile(hashlib.sha256(PRINT).hexdigest(), len(PRINT))
    assert downloads.training_print(NEWEST) == (version, PRINT)
    assert without.manifest.training_print is None and "training_print" not in without.manifest.to_body()
    with pytest.raises(TrainingPrintNotFound, match="jiangnan/versions/1"):
        downloads.training_print(VersionRef("jiangnan", 1))


def test_a_retry_repeats_its_print_and_requests_from_before_prints_are_what_they_were(publisher: Publisher) -> None:
    """Their digests are in the store: a body with one more field would be another request under an old identifier."""
    data = adapter_bytes(rank=1)
    plain, printed = request_for(data), replace(request_for(data), training_print=PRINT)
    assert "training_print" not in plain.to_body()
    first = publisher.publish(printed, data, ANA, op_id="a")
    assert publisher.publish(printed, data, ANA, op_id="a") == first
    for other in (plain, replace(printed, training_print=made_up(seed=1).to_bytes())):
        with pytest.raises(OperationConflict):
            publisher.publish(other, data, ANA, op_id="a")


def test_what_is_no_training_print_is_refused_before_any_byte_of_the_file(publisher: Publisher) -> None:
    with pytest.raises(TrainingPrintInvalid, match="no training print"):
        publisher.admit(replace(request_for(b"x"), training_print=PRINT[:-1]), ANA)
    with pytest.raises(TrainingPrintInvalid, match="at most 4194304"):
        publisher.admit(replace(request_for(b"x"), training_print=bytes(5 * MAX_BYTES)), ANA)


class LastWriteFails(MemoryStore):
    """A store that breaks exactly when the manifest would be written."""

    broken = True

    def create(self, key: str, body: bytes) -> None:
        if self.broken and key.startswith("adapters/jiangnan/0"):
            raise StoreUnavailable(f"can't write {key}", key)
        super().create(key, body)


def test_a_store_that_breaks_before_the_manifest_leaves_nothing_listed_and_a_retry_completes(folder: Path) -> None:
    store = LastWriteFails()
    domain = open_domain(store)
    publisher, data = publisher_of(domain, folder), adapter_bytes(rank=1)
    with pytest.raises(StoreUnavailable):
        publisher.publish(request_for(data), data, ANA, op_id="a")
    assert domain.versions.adapters() == []
    store.broken = False
    assert publisher.publish(request_for(data), data, ANA, op_id="a").number == 1


def test_a_print_is_stored_before_the_version_that_names_it(folder: Path) -> None:
    store = LastWriteFails()
    domain = open_domain(store)
    publisher, data = publisher_of(domain, folder), adapter_bytes(rank=1)
    with pytest.raises(StoreUnavailable):
        publisher.publish(replace(request_for(data), training_print=PRINT), data, ANA, op_id="a")
    assert domain.blobs.get(hashlib.sha256(PRINT).hexdigest()) == PRINT and domain.versions.adapters() == []


@pytest.mark.parametrize("size", [0, -1, MAX_BYTES + 1])
def test_a_size_outside_the_limit_is_refused_before_any_byte(publisher: Publisher, size: int) -> None:
    with pytest.raises(UploadInvalid, match=str(MAX_BYTES)):
        publisher.admit(replace(request_for(b"x"), size_bytes=size), ANA)


def test_the_digest_of_another_base_is_refused_and_the_right_or_none_is_not(
    domain: Domain, publisher: Publisher
) -> None:
    request = request_for(b"x")
    publisher.admit(request, ANA)
    publisher.admit(replace(request, base_digest=domain.bases.get("tiny").digest), ANA)
    with pytest.raises(BaseMismatch, match="bases/tiny"):
        publisher.admit(replace(request, base_digest="0" * 64), ANA)


@pytest.mark.parametrize("alpha", ["Infinity", "NaN", "1e39"])
def test_an_alpha_that_no_stored_file_could_hold_is_refused(publisher: Publisher, alpha: str) -> None:
    tensors = safetensors_bytes.read(to_diffusers(make_adapter(rank=2))).tensors
    data = safetensors_bytes.write(tensors, {"lora_adapter_metadata": f'{{"unet.lora_alpha": {alpha}}}'}, "float32")
    with pytest.raises(AdapterFileInvalid) as refused:
        publisher.publish(request_for(data), data, ANA, op_id="a")
    assert refused.value.reason == "ADAPTER_NOT_FINITE"


def refused(publisher: Publisher, data: bytes) -> str:
    """The reason for which a file is not published."""
    with pytest.raises(AdapterFileInvalid) as caught:
        publisher.publish(request_for(data), data, ANA, op_id="a")
    return caught.value.reason


def test_a_rank_above_the_setting_is_refused_with_its_name(domain: Domain, folder: Path) -> None:
    domain.bases.register_folder("tiny", folder)
    publisher = Publisher(domain.bases, domain.versions, domain.blobs, MAX_BYTES, max_rank=4)
    data = adapter_bytes(rank=5)
    with pytest.raises(AdapterFileInvalid, match=r"rank 5 exceeds max_rank 4.*TERROIR_REGISTRY_MAX_RANK") as caught:
        publisher.publish(request_for(data), data, ANA, op_id="a")
    assert caught.value.reason == "ADAPTER_RANK_TOO_LARGE"


def test_a_dora_is_had_in_both_formats_and_one_beside_a_lora_is_refused(domain: Domain, publisher: Publisher) -> None:
    modules = dict(make_adapter(rank=2).modules)
    doras = {
        layer: replace(module, magnitude=np.ones(module.up.shape[0], np.float32)) for layer, module in modules.items()
    }
    data = to_kohya(Adapter(doras), {})
    manifest = publisher.publish(request_for(data), data, ANA, op_id="a").manifest
    for adapter_format in AdapterFormat:
        download = Downloads(domain.adapters, domain.bases, domain.blobs).open(NEWEST, adapter_format)
        assert parse(b"".join(download.chunks), TABLE).adapter.tensor_digest() == manifest.tensor_digest
    mixed = to_kohya(Adapter({**modules, min(modules): doras[min(modules)]}), {})
    assert refused(publisher, mixed) == "ADAPTER_UNSUPPORTED"


def test_what_is_published_is_kept_with_the_hashes_that_sites_show(domain: Domain, publisher: Publisher) -> None:
    data = to_diffusers(make_adapter(rank=2))
    request = replace(request_for(data), tags=("ink",), description="Rain.", metrics={"style_similarity": 0.7})
    manifest = publisher.publish(request, data, ANA, op_id="a").manifest
    stored = domain.blobs.get(manifest.kohya.digest)
    derived = Downloads(domain.adapters, domain.bases, domain.blobs).open(NEWEST, AdapterFormat.DIFFUSERS)
    assert manifest.hashes == {**site_hashes(stored), "diffusers": derived.file.digest}
    assert (manifest.upload_digest, manifest.actor) == (hashlib.sha256(data).hexdigest(), "local:ana")
    metadata = safetensors_bytes.read(stored).metadata
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert (metadata["modelspec.description"], metadata["modelspec.tags"]) == ("Rain.", "ink")
    assert metadata[BASE_DIGEST_KEY] == manifest.base_digest
    assert "local:ana" not in metadata.values()


def test_sdxl_is_stored_as_sd_scripts_names_it(domain: Domain, folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    publisher = publisher_of(domain, folder)
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    projections = {f"{text}.text_model.encoder.layers.0.self_attn.q_proj": (6, 6) for text in TEXT_ENCODERS}
    data = to_diffusers(make_adapter(rank=2, layers={block: (8, 8), **projections}))
    manifest = publisher.publish(request_for(data), data, ANA, op_id="a").manifest
    stored = safetensors_bytes.read(domain.blobs.get(manifest.kohya.digest))
    assert {key.partition(".")[0] for key in stored.tensors} == {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_0_self_attn_q_proj",
    }
    assert stored.metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert stored.metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


def test_layers_that_style_adapters_usually_change_are_counted_when_missing(publisher: Publisher) -> None:
    data = adapter_bytes(rank=1)
    assert publisher.publish(request_for(data), data, ANA, op_id="a").manifest.missing_layers == 2


def test_who_may_not_publish_is_refused_before_any_byte(publisher: Publisher) -> None:
    with pytest.raises(PermissionDenied, match="publish"):
        publisher.admit(request_for(b"x"), VI)


BAD_NOTES = {
    "a tag in capitals": ({"tags": ("Ink",)}, "INVALID_NAME"),
    "too many tags": ({"tags": tuple(f"t{n}" for n in range(33))}, "TOO_MANY_TAGS"),
    "a metric with a blank": ({"metrics": {"style similarity": 1.0}}, "INVALID_NAME"),
    "a metric without end": ({"metrics": {"loss": float("inf")}}, "OUT_OF_RANGE"),
    "too many metrics": ({"metrics": {f"m{n}": 1.0 for n in range(65)}}, "TOO_MANY_METRICS"),
    "too many labels": ({"labels": {f"l{n}": "" for n in range(65)}}, "TOO_MANY_LABELS"),
    "a novel": ({"description": "x" * 2001}, "TEXT_TOO_LONG"),
    "a trigger like a novel": ({"trigger_word": "x" * 65}, "TEXT_TOO_LONG"),
    "a checkpoint like a novel": ({"lineage": Lineage(checkpoint="x" * 257)}, "TEXT_TOO_LONG"),
    "a parent like a novel": ({"lineage": Lineage(parent="x" * 257)}, "TEXT_TOO_LONG"),
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_notes_beyond_their_limits_are_refused(folder: Path, name: str) -> None:
    changes, reason = BAD_NOTES[name]
    publisher = publisher_of(open_domain(MemoryStore()), folder)
    with pytest.raises(InvalidArgument) as caught:
        publisher.admit(replace(request_for(b"x"), **changes), ANA)
    assert caught.value.reason == reason


def test_no_header_length_makes_a_file_look_like_something_else() -> None:
    """The first byte of a safetensors file is the low byte of its header length; 0x80 is also a pickle's first byte."""
    adapter = make_adapter(rank=1)
    files = [to_kohya(adapter, {"note": "x" * length}) for length in range(0, 1024, 8)]
    assert {file[0] for file in files} == set(range(0, 256, 8))
    assert {parse(file, TABLE).adapter.tensor_digest() for file in files} == {adapter.tensor_digest()}


GOOD = adapter_bytes(rank=1)


def outcome(data: bytes) -> str:
    """`read`, or the reason of the refusal."""
    try:
        return "read" if read_adapter_file(data, TABLE).matched else "empty"
    except AdapterFileInvalid as error:
        return error.reason


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=12), st.integers(0, len(GOOD)))
def test_however_a_file_is_damaged_it_is_read_or_refused_with_a_reason(at: int, noise: bytes, length: int) -> None:
    damaged = (GOOD[:at] + noise + GOOD[at + len(noise) :])[: max(length, at)]
    assert outcome(damaged).startswith(("ADAPTER_", "read"))
