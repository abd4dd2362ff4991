"""RegistryService as a client meets it: a real server on loopback, every promise of the contract's comments."""

from __future__ import annotations

import getpass
import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from tests.contract.registry.running import BASE, OTHER_BASE, Running, refused
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.scoring.print_kit import made_up


def test_a_published_version_is_the_newest_and_tells_all_about_itself(registry: Running) -> None:
    data = adapter_bytes(rank=2)
    version = registry.publish(
        "adapters/jiangnan",
        data,
        trigger_word="jnsty",
        labels={"mood": "wet"},
        lineage=pb.Lineage(job="jobs/j1", dataset_version="datasets/d/versions/1"),
    )
    base = registry.api.GetBase(pb.GetBaseRequest(name=BASE))
    assert version.name == "adapters/jiangnan/versions/1"
    assert (version.base, version.base_digest) == (BASE, base.digest)
    assert (version.rank, version.trigger_word, version.labels["mood"]) == (2, "jnsty", "wet")
    assert version.coverage.matched_layers == 3
    assert version.lineage.job == "jobs/j1"
    assert version.create_time.seconds > 0
    for name in ("adapters/jiangnan", "adapters/jiangnan/versions/1"):
        assert registry.api.GetVersion(pb.GetVersionRequest(name=name)) == version


def test_both_files_of_a_version_can_be_downloaded_and_are_what_the_header_says(registry: Running) -> None:
    version = registry.publish("adapters/jiangnan", adapter_bytes(rank=2))
    for adapter_format, file_name in (
        (pb.ADAPTER_FORMAT_UNSPECIFIED, "jiangnan-v1.safetensors"),
        (pb.ADAPTER_FORMAT_KOHYA, "jiangnan-v1.safetensors"),
        (pb.ADAPTER_FORMAT_DIFFUSERS, "pytorch_lora_weights.safetensors"),
    ):
        header, data = registry.download("adapters/jiangnan", adapter_format)
        assert header.version == version
        assert header.file_name == file_name
        assert (header.size_bytes, header.digest) == (len(data), hashlib.sha256(data).hexdigest())
        if adapter_format != pb.ADAPTER_FORMAT_DIFFUSERS:
            assert (version.file_digest, version.size_bytes) == (header.digest, len(data))


def test_a_training_print_is_returned_as_it_was_sent_and_a_version_without_one_says_so(registry: Running) -> None:
    sent = made_up(270, 768).to_bytes()  # 3.96 MiB, close to the most
    version = registry.publish("adapters/jiangnan", adapter_bytes(rank=1), training_print=sent)
    found = registry.api.GetTrainingPrint(pb.GetTrainingPrintRequest(name="adapters/jiangnan"), timeout=30)
    assert (found.version, found.digest) == (version.name, version.training_print_digest)
    assert found.training_print == sent and hashlib.sha256(sent).hexdigest() == found.digest
    assert registry.api.GetVersion(pb.GetVersionRequest(name=version.name)) == version
    plain = registry.publish("adapters/plain", adapter_bytes(rank=1))
    assert plain.training_print_digest == ""
    with refused() as error:
        registry.api.GetTrainingPrint(pb.GetTrainingPrintRequest(name=plain.name))
    assert (error.code, error.reason) == ("NOT_FOUND", "TRAINING_PRINT_NOT_FOUND")


@pytest.mark.parametrize("adapter_format", [pb.ADAPTER_FORMAT_KOHYA, pb.ADAPTER_FORMAT_DIFFUSERS])
def test_a_downloaded_file_published_again_has_the_same_tensors(
    registry: Running, adapter_format: pb.AdapterFormat.ValueType
) -> None:
    first = registry.publish("adapters/jiangnan", adapter_bytes(rank=2))
    _, data = registry.download("adapters/jiangnan", adapter_format)
    second = registry.publish("adapters/copy", data)
    assert second.coverage.matched_layers == first.coverage.matched_layers
    if adapter_format == pb.ADAPTER_FORMAT_KOHYA:
        assert second.tensor_digest == first.tensor_digest


def test_eight_publishers_at_once_get_the_versions_one_to_eight(registry: Running) -> None:
    files = [adapter_bytes(rank=1, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda data: registry.publish("adapters/busy", data), files))
    numbers = sorted(int(version.name.rpartition("/")[2]) for version in versions)
    assert numbers == list(range(1, 9))
    listed = registry.api.ListVersions(pb.ListVersionsRequest(adapter="adapters/busy")).versions
    assert [version.name for version in listed] == [f"adapters/busy/versions/{number}" for number in range(8, 0, -1)]
    assert len({version.tensor_digest for version in listed}) == 8


def test_a_retry_returns_the_version_that_is_already_there(registry: Running) -> None:
    data = adapter_bytes(rank=2)
    first = registry.publish("adapters/jiangnan", data, request_id="jobs/j1")
    registry.publish("adapters/jiangnan", adapter_bytes(rank=2, seed=5))
    assert registry.publish("adapters/jiangnan", data, request_id="jobs/j1") == first
    assert registry.api.GetAdapter(pb.GetAdapterRequest(name="adapters/jiangnan")).newest_version == 2


def test_one_request_id_for_two_files_is_an_error(registry: Running) -> None:
    registry.publish("adapters/jiangnan", adapter_bytes(rank=2), request_id="jobs/j1")
    with refused() as error:
        registry.publish("adapters/jiangnan", adapter_bytes(rank=2, seed=5), request_id="jobs/j1")
    assert error.reason == "STORE_OPERATION_CONFLICT"


def test_an_adapter_for_another_base_is_refused_before_any_byte(registry: Running) -> None:
    def messages() -> Iterator[pb.PublishVersionRequest]:
        yield pb.PublishVersionRequest(header=registry.header("adapters/x", b"data", base_digest="0" * 64))
        time.sleep(30)  # a server that waits for bytes first would run into the deadline

    with refused() as error:
        registry.api.PublishVersion(messages(), timeout=5)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ADAPTER_BASE_MISMATCH")
    assert not registry.adapters()


def test_a_downloaded_file_is_refused_for_another_base_of_the_same_shapes(registry: Running) -> None:
    registry.publish("adapters/jiangnan", adapter_bytes(rank=2))
    _, data = registry.download("adapters/jiangnan", pb.ADAPTER_FORMAT_KOHYA)
    with refused() as error:
        registry.publish("adapters/jiangnan", data, base=OTHER_BASE)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ADAPTER_BASE_MISMATCH")


def test_an_upload_that_is_killed_leaves_nothing_listed(registry: Running) -> None:
    data = adapter_bytes(rank=2)
    first_sent = threading.Event()

    def messages() -> Iterator[pb.PublishVersionRequest]:
        yield pb.PublishVersionRequest(header=registry.header("adapters/x", data))
        yield pb.PublishVersionRequest(chunk=data[:100])
        first_sent.set()
        threading.Event().wait()

    call = registry.api.PublishVersion.future(messages())
    assert first_sent.wait(10)
    call.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        call.result()
    assert not registry.adapters()
    assert registry.publish("adapters/x", data).name == "adapters/x/versions/1"


def test_aliases_move_with_actor_and_reason_and_refuse_a_stale_etag(registry: Running) -> None:
    for seed in (1, 2):
        registry.publish("adapters/jiangnan", adapter_bytes(rank=1, seed=seed))
    first = registry.set_alias("production", 1, reason="first")
    moved = registry.set_alias("production", 2, reason="warmer", etag=first.etag)
    assert (moved.version, moved.actor, moved.reason) == (
        "adapters/jiangnan/versions/2", f"local:{getpass.getuser()}", "warmer",
    )  # fmt: skip
    with refused() as error:
        registry.set_alias("production", 1, etag=first.etag)
    assert error.code == "ABORTED"
    adapter = registry.api.GetAdapter(pb.GetAdapterRequest(name="adapters/jiangnan"))
    assert list(adapter.aliases) == [moved]
    found = registry.api.GetVersion(pb.GetVersionRequest(name="adapters/jiangnan@production"))
    assert found.name == "adapters/jiangnan/versions/2"


def test_a_corrupt_blob_never_arrives_as_a_whole_file(registry: Running) -> None:
    version = registry.publish("adapters/jiangnan", adapter_bytes(rank=2))
    registry.damage_blob(version.file_digest)
    with refused() as error:
        registry.download("adapters/jiangnan", pb.ADAPTER_FORMAT_KOHYA)
    assert error.reason == "STORE_BLOB_CORRUPT"


def test_bases_are_listed_with_what_adapters_need(registry: Running) -> None:
    other, base = registry.api.ListBases(pb.ListBasesRequest()).bases
    assert other.name == OTHER_BASE
    assert (base.name, base.family, base.prediction_type, base.native_resolution) == (BASE, "sd15", "v_prediction", 64)
    assert base.adaptable_layers > 0
    assert len(base.digest) == 64


def test_listings_follow_their_tokens(registry: Running) -> None:
    for adapter in ("c", "a", "b"):
        registry.publish(f"adapters/{adapter}", adapter_bytes(rank=1))
    first = registry.api.ListAdapters(pb.ListAdaptersRequest(page_size=2))
    second = registry.api.ListAdapters(pb.ListAdaptersRequest(page_size=2, page_token=first.next_page_token))
    assert [found.name for found in (*first.adapters, *second.adapters)] == ["adapters/a", "adapters/b", "adapters/c"]
    assert not second.next_page_token
