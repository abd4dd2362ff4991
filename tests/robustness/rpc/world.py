"""All four services on loopback, one store, and everything that they keep as a caller reads it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from terroir._proto.dataset.v1 import dataset_pb2 as ds
from terroir._proto.dataset.v1 import dataset_pb2_grpc
from terroir._proto.inference.v1 import cover_pb2 as cv
from terroir._proto.inference.v1 import cover_pb2_grpc, inference_pb2_grpc
from terroir._proto.registry.v1 import recipe_pb2, region_pb2, region_pb2_grpc, registry_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2 as reg
from terroir._proto.training.v1 import rating_pb2 as rt
from terroir._proto.training.v1 import rating_pb2_grpc, style_pb2_grpc, training_pb2_grpc
from terroir._proto.training.v1 import style_pb2 as st
from terroir._proto.training.v1 import training_pb2 as tr
from terroir.client.datasets import Datasets, scan_folder
from terroir.common.clock import SystemClock
from terroir.common.grpc_client import channel
from terroir.dataset.main import build as build_dataset
from terroir.dataset.settings import DatasetSettings
from terroir.dataset.thresholds import Thresholds as GateThresholds
from terroir.inference.main import build as build_inference
from terroir.inference.settings import InferenceSettings
from terroir.registry.main import build as build_registry
from terroir.registry.settings import RegistrySettings
from terroir.store.documents import DocumentSequence
from terroir.store.local import LocalStore
from terroir.tiny import CLIP_DIR
from terroir.training.judging.judgement import JudgedCheckpoint, Judgement, Measured
from terroir.training.judging.kept import KeptJudgements
from terroir.training.judging.verdicts import Thresholds
from terroir.training.main import build as build_training
from terroir.training.settings import TrainingSettings
from tests.integration.dataset.tiny_clip import build_clip_folder
from tests.integration.inference.inference_server import running_server, until
from tests.integration.inference.test_hot_load import adapter_file
from tests.robustness.rpc.faults import Faults
from tests.unit.scoring.print_kit import made_up

BASE = "bases/tiny"
REGION = "regions/CN-ZJ"
CHUNK_BYTES = 20_000
MANY = 200
"""Contents of a preparation that does not end by itself while a test runs."""


@dataclass
class Stubs:
    """One caller's stubs of every service."""

    registry: Any
    regions: Any
    dataset: Any
    training: Any
    styles: Any
    ratings: Any
    inference: Any
    covers: Any
    dataset_channel: grpc.Channel


@dataclass
class World:
    """Running services, a caller whose calls may fail, and one whose calls do not."""

    folder: Path
    base: Path
    faults: Faults
    faulty: Stubs
    sound: Stubs
    channels: dict[str, grpc.Channel]
    """By full name of the service."""
    _known: set[str] = field(default_factory=set)
    _frozen: str = ""

    def begin(self) -> None:
        """From now on `everything` looks into what is made after this, and only at the names of what was there."""
        self._known = {message.name for message in (*self._adapters(), *self._datasets())}

    def publish(self, stubs: Stubs, adapter: str, seed: int, request_id: str) -> reg.AdapterVersion:
        """Publish one version."""
        data = adapter_file(seed)
        header = reg.PublishHeader(
            adapter=adapter, base=BASE, size_bytes=len(data), file_digest=hashlib.sha256(data).hexdigest(),
            request_id=request_id, training_print=made_up(seed=seed).to_bytes(),
        )  # fmt: skip
        messages = [reg.PublishVersionRequest(header=header)]
        messages += [
            reg.PublishVersionRequest(chunk=data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)
        ]
        published: reg.AdapterVersion = stubs.registry.PublishVersion(iter(messages), timeout=60)
        return published

    def adapter(self, versions: int = 2) -> str:
        """A new adapter with some versions."""
        name = f"adapters/a-{uuid.uuid4().hex[:12]}"
        for number in range(versions):
            self.publish(self.sound, name, number, str(uuid.uuid4()))
        return name

    def pictures(self, *, captions: bool = True) -> Path:
        """A folder with three pictures that no other has."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir()
        rng = np.random.default_rng(int(uuid.uuid4()) % 2**32)
        for number in range(3):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
            if captions:
                (folder / f"{number}.txt").write_text("noise, nowhere, grey, in the style of nothing")
        return folder

    def dataset(self, *, pictures: bool = True, captions: bool = True) -> str:
        """A new dataset, with three pictures unless told otherwise."""
        fields = ds.Dataset(region="CN-ZJ", trigger_word="ink", rights_statement="ours")
        request = ds.CreateDatasetRequest(
            dataset_id=f"d-{uuid.uuid4().hex[:12]}", dataset=fields, request_id=str(uuid.uuid4())
        )
        name = str(self.sound.dataset.CreateDataset(request, timeout=30).name)
        if pictures:
            self.import_into(self.sound, name, self.pictures(captions=captions))
        return name

    def import_into(self, stubs: Stubs, dataset: str, folder: Path) -> list[str]:
        """Import a folder as the client library does; verdicts by file name."""
        client = Datasets(stubs.dataset_channel)
        return sorted(
            f"{picture.path.name} {picture.image.verdict}"
            for picture in client.import_pictures(dataset, scan_folder(folder))
        )

    def frozen(self) -> str:
        """A frozen version that can be trained on, the same for all who only read it; pictures of noise warn and pass.

        One for each would make every later look at `everything` slower: it reads all datasets.
        """
        if not self._frozen:
            request = ds.FreezeVersionRequest(dataset=self.dataset(), request_id=str(uuid.uuid4()))
            self._frozen = str(self.sound.dataset.FreezeVersion(request, timeout=60).name)
        return self._frozen

    def job(self) -> str:
        """A job that waits for a Ray that never comes."""
        request = tr.CreateJobRequest(
            config_yaml=f"dataset: {self.frozen()}\nbase_model: tiny\nmax_train_steps: 2\n",
            adapter=f"adapters/j-{uuid.uuid4().hex[:12]}", request_id=str(uuid.uuid4()),
        )  # fmt: skip
        return str(self.sound.training.CreateJob(request, timeout=60).name)

    def judged_job(self) -> str:
        """A job with a judgement, as its worker would have left it."""
        name = self.job()
        broken = JudgedCheckpoint(2, "c" * 64, Measured(None, broken="its pictures are not finite"), ())
        judgement = Judgement((broken,), Thresholds(0.1, 0.8, 0.5, 0.1), 0, "warn", "r" * 64, pictures=4, seconds=1.0)
        KeptJudgements(LocalStore(self.folder / "store"), name, SystemClock()).record(judgement, "attempt/1")
        return name

    def style_request(self) -> st.RegisterStyleRequest:
        """A style to be registered from a dataset of its own."""
        return st.RegisterStyleRequest(
            style_id=f"s-{uuid.uuid4().hex[:12]}", dataset=self.dataset(), region=REGION,
            config_yaml="base_model: tiny\nmax_train_steps: 2\n", request_id=str(uuid.uuid4()),
        )  # fmt: skip

    def registered(self) -> str:
        """A registration whose job waits for a Ray that never comes."""
        name = str(self.sound.styles.RegisterStyle(self.style_request(), timeout=60).name)
        self.settle(name.partition("/registrations/")[0])
        return name

    def settle(self, style: str) -> None:
        """Wait until a style's registration, if there is one, has ended or come as far as it comes without a Ray."""

        def settled() -> bool:
            try:
                found = self.sound.styles.GetStyleRegistration(st.GetStyleRegistrationRequest(name=style), timeout=30)
            except grpc.RpcError as error:
                return bool(error.code() is grpc.StatusCode.NOT_FOUND)  # type: ignore[attr-defined]  # a Call too
            queued = found.phase == st.REGISTRATION_PHASE_QUEUED and found.HasField("job")
            return bool(found.state != st.REGISTRATION_STATE_RUNNING or (queued and not found.cancel_requested))

        until(settled)

    def sheet(self) -> str:
        """A sheet of two real and two generated pictures."""
        messages = self.sheet_messages(self.job())
        return str(self.sound.ratings.CreateRatingSheet(iter(messages), timeout=60).name)

    def sheet_messages(self, job: str) -> list[rt.CreateRatingSheetRequest]:
        """The stream that makes one."""
        header = rt.RatingSheetHeader(subject=job, real_count=2, generated_count=2, request_id=str(uuid.uuid4()))
        files = sorted(self.pictures().glob("*.png"))[:2]
        return [
            rt.CreateRatingSheetRequest(header=header),
            *(rt.CreateRatingSheetRequest(picture=rt.GeneratedPicture(data=path.read_bytes())) for path in files),
        ]

    def preparation_request(self) -> cv.PrepareCoversRequest:
        """Covers of one content, in the base's own look."""
        content = cv.CoverContent(key=f"post-{uuid.uuid4().hex[:12]}", prompt="a hill")
        return cv.PrepareCoversRequest(
            contents=[content], regions=[""], variants=1, shape=cv.CoverShape(width=32, height=32),
            request_id=str(uuid.uuid4()),
        )  # fmt: skip

    def prepared(self) -> tuple[str, str]:
        """A preparation that has ended, and the key of its content."""
        request = self.preparation_request()
        name = str(self.sound.covers.PrepareCovers(request, timeout=60).name)
        self.settle_covers()
        return name, request.contents[0].key

    def endless_preparation(self) -> str:
        """One that is not done before it is cancelled."""
        request = self.preparation_request()
        for number in range(MANY):
            request.contents.add(key=f"post-{number}-{request.request_id}", prompt="a hill")
        return str(self.sound.covers.PrepareCovers(request, timeout=60).name)

    def cover(self) -> cv.Cover:
        """A cover that is there."""
        _, key = self.prepared()
        request = cv.GetCoversRequest(queries=[cv.CoverQuery(contents=[key])], shape=cv.CoverShape(width=32, height=32))
        (found,) = self.sound.covers.GetCovers(request, timeout=60).covers
        assert found.rung == cv.RUNG_REGION
        return found

    def settle_covers(self) -> None:
        """Wait until every preparation that ends by itself has ended."""
        for found in self.sound.covers.ListPreparations(
            cv.ListPreparationsRequest(page_size=20), timeout=60
        ).preparations:
            if found.state == cv.PREPARATION_STATE_RUNNING and found.contents < MANY:
                for _ in self.sound.covers.WatchPreparation(cv.WatchPreparationRequest(name=found.name), timeout=60):
                    pass

    def everything(self) -> dict[str, list[bytes]]:
        """All that the services keep, as messages."""
        adapters, datasets = self._adapters(), self._datasets()
        new_adapters = [adapter for adapter in adapters if adapter.name not in self._known]
        new_datasets = [dataset for dataset in datasets if dataset.name not in self._known]
        api, regions, data = self.sound.registry, self.sound.regions, self.sound.dataset
        kept: dict[str, list[Any]] = {
            "bases": api.ListBases(reg.ListBasesRequest(), timeout=30).bases,
            "adapters": adapters,
            "recipes": api.ListRecipes(reg.ListRecipesRequest(page_size=200), timeout=30).recipes,
            "regions": regions.ListRegions(region_pb2.ListRegionsRequest(page_size=200), timeout=30).regions,
            "datasets": datasets,
            "jobs": [
                _without_progress(job)
                for job in self.sound.training.ListJobs(tr.ListJobsRequest(page_size=200), timeout=30).jobs
            ],
        }
        kept["versions"] = [
            version
            for adapter in new_adapters
            for version in api.ListVersions(reg.ListVersionsRequest(adapter=adapter.name), timeout=30).versions
        ]
        kept["audit"] = [
            event
            for adapter in new_adapters
            for event in api.ListAuditEvents(reg.ListAuditEventsRequest(adapter=adapter.name), timeout=30).events
        ]
        kept["registrations"] = [
            _without_moment(found)
            for found in self.sound.styles.ListStyleRegistrations(
                st.ListStyleRegistrationsRequest(page_size=200), timeout=30
            ).registrations
        ]
        kept["sheets"] = list(
            self.sound.ratings.ListRatingSheets(rt.ListRatingSheetsRequest(page_size=200), timeout=30).sheets
        )
        kept["preparations"] = [
            _without_tally(found)
            for found in self.sound.covers.ListPreparations(
                cv.ListPreparationsRequest(page_size=200), timeout=30
            ).preparations
        ]
        kept["presets"] = [
            api.GetPresets(reg.GetPresetsRequest(adapter=adapter.name), timeout=30) for adapter in new_adapters
        ]
        kept["samples"] = [sample for presets in kept["presets"] for sample in presets.samples]
        kept["images"] = [
            image
            for dataset in new_datasets
            for image in data.ListImages(ds.ListImagesRequest(dataset=dataset.name), timeout=30).images
        ]
        kept["frozen"] = [
            version
            for dataset in new_datasets
            for version in data.ListVersions(ds.ListVersionsRequest(dataset=dataset.name), timeout=30).versions
        ]
        everything = {
            name: [message.SerializeToString(deterministic=True) for message in found] for name, found in kept.items()
        }
        # No method lists them.
        said = DocumentSequence(LocalStore(self.folder / "inference"), "covers/invalidations", SystemClock()).after(0)
        everything["invalidations"] = [json.dumps(document.body).encode() for document in said]
        return everything

    def _adapters(self) -> list[reg.Adapter]:
        """By pages of the greatest size."""
        found: list[reg.Adapter] = []
        token = ""
        while not found or token:
            page = self.sound.registry.ListAdapters(
                reg.ListAdaptersRequest(page_size=200, page_token=token), timeout=30
            )
            found, token = [*found, *page.adapters], page.next_page_token
            if not found:
                break
        return found

    def _datasets(self) -> list[ds.Dataset]:
        found: list[ds.Dataset] = []
        token = ""
        while not found or token:
            page = self.sound.dataset.ListDatasets(ds.ListDatasetsRequest(page_size=200, page_token=token), timeout=30)
            found, token = [*found, *page.datasets], page.next_page_token
            if not found:
                break
        return found


def _without_progress(job: tr.Job) -> tr.Job:
    """The queue tries on and on to reach Ray; what it finds is no caller's doing."""
    copy = tr.Job()
    copy.CopyFrom(job)
    copy.ClearField("progress")
    return copy


def _without_moment(registration: st.StyleRegistration) -> st.StyleRegistration:
    """Without what it does at this moment, and its job's progress."""
    copy = st.StyleRegistration()
    copy.CopyFrom(registration)
    copy.ClearField("waiting_for")
    copy.job.ClearField("progress")
    return copy


def _without_tally(preparation: cv.CoverPreparation) -> cv.CoverPreparation:
    """Without what it has drawn by now: a set that is under way when it is cancelled is drawn to its end."""
    copy = cv.CoverPreparation()
    copy.CopyFrom(preparation)
    for told in ("drawn", "kept", "failed", "pictures", "failures"):
        copy.ClearField(told)
    return copy


def recipe_of(adapter: str) -> recipe_pb2.StyleRecipe:
    """A recipe of one adapter."""
    return recipe_pb2.StyleRecipe(adapters=[recipe_pb2.RecipeAdapter(adapter=adapter, weight=0.5)])


@contextmanager
def running_world(folder: Path, base: Path) -> Iterator[World]:
    """Start everything; a Ray is never started, so jobs stay queued."""
    store = folder / "store"
    clip = build_clip_folder(folder / "clip")
    faults = Faults()
    with ExitStack() as stack:

        def start(name: str, settings: Any, build: Any) -> str:
            return str(stack.enter_context(running_server(name, settings, build)))

        targets = {
            "registry": start(
                "registry", RegistrySettings(data_dir=store, port=0, base_sources={"tiny": base}), build_registry
            ),
            "dataset": start(
                "dataset",
                DatasetSettings(data_dir=store, port=0, gates=GateThresholds(minimum_side=32), tagger_dir=clip),
                build_dataset,
            ),
        }
        # Port 9 of loopback: nobody listens there, and a job that waits for its Ray stays as it is.
        training = TrainingSettings(
            data_dir=store, port=0, ray_dashboard_url="http://127.0.0.1:9", base_sources={"tiny": base},
            judge_model=str(CLIP_DIR),
            dataset_target=targets["dataset"], registry_target=targets["registry"],
        )  # fmt: skip
        targets["training"] = start("training", training, build_training)
        inference = InferenceSettings(
            data_dir=folder / "inference", port=0, base="tiny", base_model=str(base), threads=1,
            registry_target=targets["registry"],
        )  # fmt: skip
        targets["inference"] = start("inference", inference, build_inference)

        def stubs(wrap: Any) -> Stubs:
            opened = {name: wrap(stack.enter_context(channel(target))) for name, target in targets.items()}
            return Stubs(
                registry_pb2_grpc.RegistryServiceStub(opened["registry"]),
                region_pb2_grpc.RegionServiceStub(opened["registry"]),
                dataset_pb2_grpc.DatasetServiceStub(opened["dataset"]),
                training_pb2_grpc.TrainingServiceStub(opened["training"]),
                style_pb2_grpc.StyleServiceStub(opened["training"]),
                rating_pb2_grpc.RatingServiceStub(opened["training"]),
                inference_pb2_grpc.InferenceServiceStub(opened["inference"]),
                cover_pb2_grpc.CoverServiceStub(opened["inference"]),
                opened["dataset"],
            )

        sound = stubs(lambda opened: opened)
        faulty = stubs(lambda opened: grpc.intercept_channel(opened, faults))
        plain = {name: stack.enter_context(channel(target)) for name, target in targets.items()}
        channels = {
            "terroir.registry.v1.RegistryService": plain["registry"],
            "terroir.registry.v1.RegionService": plain["registry"],
            "terroir.dataset.v1.DatasetService": plain["dataset"],
            "terroir.training.v1.TrainingService": plain["training"],
            "terroir.training.v1.StyleService": plain["training"],
            "terroir.training.v1.RatingService": plain["training"],
            "terroir.inference.v1.InferenceService": plain["inference"],
            "terroir.inference.v1.CoverService": plain["inference"],
        }
        world = World(folder, base, faults, faulty, sound, channels)
        sound.regions.PutRegion(region_pb2.PutRegionRequest(region=region_pb2.Region(name=REGION)), timeout=30)
        until(lambda: _serves(sound.inference), 120)
        yield world


def _serves(stub: Any) -> bool:
    from terroir._proto.inference.v1 import inference_pb2

    try:
        return bool(stub.GetServerInfo(inference_pb2.GetServerInfoRequest(), timeout=5).base)
    except grpc.RpcError:
        return False
