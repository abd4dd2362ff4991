from __future__ import annotations

import io
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from dataset_process import ImportStream, Service, import_all, reason_of, running
from PIL import Image
from tiny_clip import build_clip_folder

from terroir._proto.dataset.v1 import dataset_pb2 as pb
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import all_scenes, caption

SCENES = all_scenes(held_out=False)[::31]


def drawn(index: int) -> bytes:
    file = io.BytesIO()
    render(SCENES[index], np.random.default_rng(index)).save(file, "PNG")
    return file.getvalue()


FILES = [(f"{index:02}.png", drawn(index), caption(SCENES[index])) for index in range(12)]


def bomb() -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + body + struct.pack(">I", zlib.crc32(body))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    clip = build_clip_folder(tmp_path_factory.mktemp("clip"))
    with running(tmp_path_factory.mktemp("data"), TAGGER_DIR=str(clip)) as started:
        yield started


@pytest.fixture
def dataset(service: Service) -> str:
    fields = pb.Dataset(display_name="Ink", region="CN-ZJ", trigger_word="inkstyle", rights_statement="ours")
    request = pb.CreateDatasetRequest(dataset_id=f"d-{uuid.uuid4()}", dataset=fields, request_id=str(uuid.uuid4()))
    return service.stub.CreateDataset(request).name


def refused(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        list(call) if hasattr(call, "__iter__") else call()  # type: ignore[operator]  # a stream or a thunk
    return caught.value.code(), reason_of(caught.value)


def test_a_dataset_is_created_read_and_listed(service: Service, dataset: str) -> None:
    read = service.stub.GetDataset(pb.GetDatasetRequest(name=dataset))
    assert (read.display_name, read.region, read.trigger_word, read.image_count) == ("Ink", "CN-ZJ", "inkstyle", 0)
    assert read.etag
    assert read.create_time.seconds > 1_700_000_000
    names, token = [], ""
    while not names or token:
        page = service.stub.ListDatasets(pb.ListDatasetsRequest(page_size=1, page_token=token))
        names += [listed.name for listed in page.datasets]
        token = page.next_page_token
    assert dataset in names
    assert names == sorted(names)


def test_creating_is_refused_twice_but_safe_to_retry(service: Service) -> None:
    request = pb.CreateDatasetRequest(dataset_id=f"d-{uuid.uuid4()}", request_id="one")
    assert service.stub.CreateDataset(request) == service.stub.CreateDataset(request)
    request.request_id = "two"
    answer = refused(lambda: service.stub.CreateDataset(request))
    assert answer == (grpc.StatusCode.ALREADY_EXISTS, "DATASET_EXISTS")


def test_a_folder_of_good_and_bad_files_is_imported_and_listed(service: Service, dataset: str) -> None:
    bad = [("notes.png", b"text", ""), ("bomb.png", bomb(), ""), ("cut.png", drawn(0)[:-400], "")]
    verdicts, wanted = import_all(service.stub, dataset, [*FILES, *bad])
    assert len(wanted) == len(verdicts) == len(FILES) + 3
    gates = {verdict.image.file_name: [finding.gate for finding in verdict.image.findings] for verdict in verdicts}
    assert gates == {
        **{name: [] for name, _, _ in FILES},
        "notes.png": ["NOT_AN_IMAGE"], "bomb.png": ["PIXEL_LIMIT"], "cut.png": ["TRUNCATED"],
    }  # fmt: skip
    assert service.stub.GetDataset(pb.GetDatasetRequest(name=dataset)).image_count == len(FILES) + 3
    images, token = [], ""
    while not images or token:
        page = service.stub.ListImages(pb.ListImagesRequest(dataset=dataset, page_size=4, page_token=token))
        images += page.images
        token = page.next_page_token
    assert images == [verdict.image for verdict in verdicts]
    first = images[0]
    assert (first.width, first.height, first.verdict, first.caption.source) == (64, 64, pb.VERDICT_PASS, "sidecar")


def test_a_second_import_sends_nothing(service: Service, dataset: str) -> None:
    import_all(service.stub, dataset, FILES)
    verdicts, wanted = import_all(service.stub, dataset, FILES)
    assert wanted == []
    assert all(verdict.already_present for verdict in verdicts)


def test_a_large_picture_goes_up_and_comes_down_untouched(service: Service, dataset: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    data = file.getvalue()
    (verdict,), _ = import_all(service.stub, dataset, [("noise.png", data, "noise")])
    request = pb.DownloadImageRequest(dataset=dataset, digest=verdict.image.digest)
    chunks = [answer.data for answer in service.stub.DownloadImage(request)]
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= 1024 * 1024
    assert len(data) > 13_000_000


def test_an_import_that_was_cut_off_is_resumed(service: Service, dataset: str) -> None:
    stream = ImportStream(service.stub, dataset)
    contents = {stream.offer(name, data, words): data for name, data, words in FILES}
    kept = []
    for answer in stream.answers:
        if answer.WhichOneof("message") == "wanted":
            stream.send(answer.wanted.digest, contents[answer.wanted.digest])
        else:
            kept.append(answer.verdict.image.digest)
            if len(kept) == 5:
                break
    stream.close()
    verdicts, wanted = import_all(service.stub, dataset, FILES)
    assert set(wanted).isdisjoint(kept)
    assert {verdict.image.digest for verdict in verdicts} == set(contents)


@pytest.mark.parametrize("name", ["../cover.png", "folder/cover.png", ".."])
def test_a_path_as_file_name_is_refused(service: Service, dataset: str, name: str) -> None:
    stream = ImportStream(service.stub, dataset)
    stream.offer(name, b"x")
    assert refused(stream.answers) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FILE_NAME")
    stream.close()


def test_messages_out_of_place_are_refused(service: Service, dataset: str) -> None:
    cases: list[tuple[list[pb.ImportImagesRequest], str]] = [
        ([], "IMPORT_NOT_STARTED"),
        ([pb.ImportImagesRequest(offers_done=pb.OffersDone())], "IMPORT_NOT_STARTED"),
        ([_start(dataset), _start(dataset)], "IMPORT_STARTED_TWICE"),
        ([_start(dataset), pb.ImportImagesRequest()], "IMPORT_MESSAGE_EMPTY"),
    ]
    for messages, reason in cases:
        answer = refused(service.stub.ImportImages(iter(messages)))
        assert answer == (grpc.StatusCode.INVALID_ARGUMENT, reason)


def _start(dataset: str) -> pb.ImportImagesRequest:
    return pb.ImportImagesRequest(start=pb.ImportStart(dataset=dataset))


def test_captions_are_drafted_outside_the_server_process(service: Service, dataset: str) -> None:
    import_all(service.stub, dataset, [(name, data, "") for name, data, _ in FILES[:3]])
    answers = list(service.stub.CaptionImages(pb.CaptionImagesRequest(dataset=dataset)))
    assert [(answer.done, answer.total) for answer in answers] == [(1, 3), (2, 3), (3, 3)]
    made = answers[0].image.caption
    assert (made.text, made.source) == (made.draft, "tagger")
    assert made.text.startswith(("a ", "an "))
    assert -1 <= made.agreement <= 1
    assert made.agreement != 0
    server = psutil.Process(service.process.pid)
    assert any("libtorch" in mapped.path for child in server.children() for mapped in child.memory_maps())
    assert not any("libtorch" in mapped.path for mapped in server.memory_maps())
    assert list(service.stub.CaptionImages(pb.CaptionImagesRequest(dataset=dataset))) == []


def test_a_caption_is_replaced_by_a_person(service: Service, dataset: str) -> None:
    (verdict, *_), _ = import_all(service.stub, dataset, FILES[:2])
    request = pb.UpdateCaptionRequest(dataset=dataset, digest=verdict.image.digest, text="my words", request_id="r")
    image = service.stub.UpdateCaption(request)
    assert (image.caption.text, image.caption.source) == ("my words", "human")
    assert service.stub.UpdateCaption(request) == image
    request.text = "other words"
    assert refused(lambda: service.stub.UpdateCaption(request))[1] == "STORE_OPERATION_CONFLICT"


def test_a_dataset_is_frozen_read_and_listed(service: Service, dataset: str) -> None:
    import_all(service.stub, dataset, FILES[:4])
    first = service.stub.FreezeVersion(pb.FreezeVersionRequest(dataset=dataset, request_id="one"))
    assert (first.name, first.image_count, first.trigger_word) == (f"{dataset}/versions/1", 4, "inkstyle")
    assert {image.caption.text for image in first.images} == {words for _, _, words in FILES[:4]}
    assert service.stub.FreezeVersion(pb.FreezeVersionRequest(dataset=dataset)) == first
    import_all(service.stub, dataset, FILES[4:6])
    second = service.stub.FreezeVersion(pb.FreezeVersionRequest(dataset=dataset))
    assert service.stub.GetVersion(pb.GetVersionRequest(name=dataset)) == second
    assert service.stub.GetVersion(pb.GetVersionRequest(name=first.name)) == first
    pages = service.stub.ListVersions(pb.ListVersionsRequest(dataset=dataset, page_size=1))
    assert [(version.name, len(version.images)) for version in pages.versions] == [(second.name, 0)]
    rest = service.stub.ListVersions(pb.ListVersionsRequest(dataset=dataset, page_token=pages.next_page_token))
    assert [version.name for version in rest.versions] == [first.name]


def test_what_cannot_be_frozen_says_why(service: Service, dataset: str) -> None:
    freeze = pb.FreezeVersionRequest(dataset=dataset)
    refusal = grpc.StatusCode.FAILED_PRECONDITION
    assert refused(lambda: service.stub.FreezeVersion(freeze)) == (refusal, "DATASET_EMPTY")
    import_all(service.stub, dataset, [(name, data, "") for name, data, _ in FILES[:2]])
    assert refused(lambda: service.stub.FreezeVersion(freeze)) == (refusal, "CAPTIONS_MISSING")


def test_what_does_not_exist_is_not_found_by_every_call(service: Service, dataset: str) -> None:
    stub, none = service.stub, "datasets/none"
    calls = [
        lambda: stub.GetDataset(pb.GetDatasetRequest(name=none)),
        lambda: stub.ListImages(pb.ListImagesRequest(dataset=none)),
        lambda: list(stub.ImportImages(iter([_start(none)]))),
        lambda: list(stub.DownloadImage(pb.DownloadImageRequest(dataset=none, digest="0" * 64))),
        lambda: list(stub.CaptionImages(pb.CaptionImagesRequest(dataset=none))),
        lambda: stub.UpdateCaption(pb.UpdateCaptionRequest(dataset=none, digest="0" * 64, text="words")),
        lambda: stub.FreezeVersion(pb.FreezeVersionRequest(dataset=none)),
        lambda: stub.GetVersion(pb.GetVersionRequest(name=none)),
        lambda: stub.ListVersions(pb.ListVersionsRequest(dataset=none)),
    ]
    assert {refused(call) for call in calls} == {(grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")}
    gone = pb.DownloadImageRequest(dataset=dataset, digest="0" * 64)
    assert refused(stub.DownloadImage(gone))[1] == "IMAGE_NOT_FOUND"
    assert (
        refused(lambda: stub.GetVersion(pb.GetVersionRequest(name=f"{dataset}/versions/9")))[1] == "VERSION_NOT_FOUND"
    )


@pytest.mark.parametrize("name", ["", "ink", "datasets/", "datasets/../x", "datasets/a/b", "jobs/a"])
def test_a_malformed_name_is_refused(service: Service, name: str) -> None:
    answer = refused(lambda: service.stub.GetDataset(pb.GetDatasetRequest(name=name)))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NAME")


def test_a_page_token_of_another_list_is_refused(service: Service, dataset: str) -> None:
    request = pb.ListImagesRequest(dataset=dataset, page_token="nonsense")
    assert refused(lambda: service.stub.ListImages(request))[1] == "INVALID_PAGE_TOKEN"


def test_a_server_killed_during_an_import_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    kept = []
    with running(tmp_path) as first:
        first.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id="ink"))
        stream = ImportStream(first.stub, "datasets/ink")
        contents = {stream.offer(name, data, words): data for name, data, words in FILES}
        for answer in stream.answers:
            if answer.WhichOneof("message") == "wanted":
                stream.send(answer.wanted.digest, contents[answer.wanted.digest])
            else:
                kept.append(answer.verdict.image.digest)
            if len(kept) == 4:
                first.process.kill()
                break
        stream.close()
    with running(tmp_path) as second:
        verdicts, wanted = import_all(second.stub, "datasets/ink", FILES)
        assert set(wanted).isdisjoint(kept)
        present = {verdict.image.digest for verdict in verdicts if verdict.already_present}
        assert set(kept) <= present
        assert second.stub.FreezeVersion(pb.FreezeVersionRequest(dataset="datasets/ink")).image_count == len(FILES)


def test_changed_thresholds_judge_again_without_a_new_import(tmp_path: Path) -> None:
    with running(tmp_path) as lenient:
        lenient.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id="ink"))
        import_all(lenient.stub, "datasets/ink", FILES[:2])
        first = lenient.stub.FreezeVersion(pb.FreezeVersionRequest(dataset="datasets/ink"))
    with running(tmp_path, GATES__MINIMUM_SIDE="512") as strict:
        images = strict.stub.ListImages(pb.ListImagesRequest(dataset="datasets/ink")).images
        assert [image.verdict for image in images] == [pb.VERDICT_REJECT] * 2
        freeze = pb.FreezeVersionRequest(dataset="datasets/ink")
        assert refused(lambda: strict.stub.FreezeVersion(freeze))[1] == "DATASET_EMPTY"
        assert strict.stub.GetVersion(pb.GetVersionRequest(name="datasets/ink")) == first
