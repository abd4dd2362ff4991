"""One call of every method, ready to be made twice: what it needs is made first, and a retry says exactly the same."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from PIL import Image

from terroir._proto.dataset.v1 import dataset_pb2 as ds
from terroir._proto.inference.v1 import cover_pb2 as cv
from terroir._proto.inference.v1 import inference_pb2 as inf
from terroir._proto.registry.v1 import recipe_pb2, region_pb2
from terroir._proto.registry.v1 import registry_pb2 as reg
from terroir._proto.training.v1 import rating_pb2 as rt
from terroir._proto.training.v1 import style_pb2 as st
from terroir._proto.training.v1 import training_pb2 as tr
from terroir.lora.base_folder import read_base_folder
from tests.robustness.rpc.world import BASE, Stubs, World, recipe_of

Call = Callable[[Stubs], list[Any]]
"""Makes the call through some stubs; the messages, or plain values, of its answer."""
SECONDS: Final = 60


@dataclass(frozen=True)
class Case:
    """A method and how to call it."""

    prepare: Callable[[World], Call]
    stream: bool = False
    """Its answer is a stream, which may break in the middle."""
    endless: bool = False
    """The stream ends only with its caller."""
    needs_answers: bool = False
    """The caller's messages depend on the server's, so that an answer can't be lost as a whole."""
    varies: tuple[str, ...] = ()
    """Fields of the answer that may differ from call to call."""


def _new() -> str:
    return str(uuid.uuid4())


def _unary(service: str, method: str, request: Callable[[World], Any]) -> Callable[[World], Call]:
    def prepare(world: World) -> Call:
        message = request(world)
        return lambda stubs: [getattr(getattr(stubs, service), method)(message, timeout=SECONDS)]

    return prepare


def _stream(
    service: str, method: str, request: Callable[[World], Any], most: int | None = None
) -> Callable[[World], Call]:
    def prepare(world: World) -> Call:
        message = request(world)

        def call(stubs: Stubs) -> list[Any]:
            answers: Iterable[Any] = getattr(getattr(stubs, service), method)(message, timeout=SECONDS)
            return list(answers if most is None else islice(answers, most))

        return call

    return prepare


def _publish(world: World) -> Call:
    name, request_id = world.adapter(1), _new()
    return lambda stubs: [world.publish(stubs, name, 5, request_id)]


def _import(world: World) -> Call:
    name, folder = world.dataset(pictures=False), world.pictures()
    return lambda stubs: list(world.import_into(stubs, name, folder))


def _picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng().integers(0, 255, (32, 32, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def _aliased(world: World) -> str:
    """An adapter whose alias `staging` was moved twice."""
    name = world.adapter()
    for number in (1, 2):
        request = reg.SetAliasRequest(
            adapter=name, alias="staging", version=f"{name}/versions/{number}", reason="r", request_id=_new()
        )
        world.sound.registry.SetAlias(request, timeout=SECONDS)
    return name


def _recipe(world: World) -> str:
    name = f"recipes/r-{uuid.uuid4().hex[:12]}"
    recipe = recipe_pb2.Recipe(name=name, display_name="R", style=recipe_of(world.adapter(1)))
    return str(
        world.sound.registry.PutRecipe(reg.PutRecipeRequest(recipe=recipe, request_id=_new()), timeout=SECONDS).name
    )


def _region(world: World) -> str:
    region = region_pb2.Region(
        name=f"regions/X-{uuid.uuid4().hex[:8]}", display_name="X", recipe=recipe_of(world.adapter(1))
    )
    return str(
        world.sound.regions.PutRegion(
            region_pb2.PutRegionRequest(region=region, request_id=_new()), timeout=SECONDS
        ).name
    )


def _image(world: World) -> tuple[str, str]:
    name = world.dataset()
    images = world.sound.dataset.ListImages(ds.ListImagesRequest(dataset=name), timeout=SECONDS).images
    return name, images[0].digest


def _sampled(world: World) -> reg.GetSampleRequest:
    name = world.adapter(1)
    request = reg.AddSampleRequest(adapter=name, picture=_picture(), request_id=_new())
    return reg.GetSampleRequest(adapter=name, digest=world.sound.registry.AddSample(request, timeout=SECONDS).digest)


def _register(world: World) -> reg.RegisterBaseRequest:
    content = read_base_folder(world.base)
    return reg.RegisterBaseRequest(
        name=f"bases/b-{uuid.uuid4().hex[:8]}", family=content.family, prediction_type=content.prediction_type,
        component_digests=content.component_digests, native_resolution=content.native_resolution,
        layers=[reg.LayerShape(layer=layer, shape=shape) for layer, shape in sorted(content.layers.items())],
        request_id=_new(),
    )  # fmt: skip


def _lookup(world: World) -> str:
    return str(
        world.sound.registry.GetVersion(reg.GetVersionRequest(name=world.adapter(1)), timeout=SECONDS).tensor_digest
    )


def _config(world: World) -> str:
    return f"dataset: {world.frozen()}\nbase_model: tiny\nmax_train_steps: 2\n"


def _settled(method: str, request: Callable[[World], Any], style_of: Callable[[Any], str]) -> Callable[[World], Call]:
    """A call after which a registration goes on by itself: it has come to rest when the call is over."""

    def prepare(world: World) -> Call:
        message = request(world)

        def call(stubs: Stubs) -> list[Any]:
            try:
                return [getattr(stubs.styles, method)(message, timeout=SECONDS)]
            finally:
                world.settle(style_of(message))

        return call

    return prepare


def _prepare(world: World) -> Call:
    message = world.preparation_request()

    def call(stubs: Stubs) -> list[Any]:
        try:
            return [stubs.covers.PrepareCovers(message, timeout=SECONDS)]
        finally:
            world.settle_covers()

    return call


def _sheet(world: World) -> Call:
    messages = world.sheet_messages(world.job())
    return lambda stubs: [stubs.ratings.CreateRatingSheet(iter(messages), timeout=SECONDS)]


R, G, D, T, I = "registry", "regions", "dataset", "training", "inference"  # noqa: E741
Y, B, C = "styles", "ratings", "covers"
_REGISTRY = "terroir.registry.v1.RegistryService"
_REGIONS = "terroir.registry.v1.RegionService"
_DATASET = "terroir.dataset.v1.DatasetService"
_TRAINING = "terroir.training.v1.TrainingService"
_STYLES = "terroir.training.v1.StyleService"
_RATINGS = "terroir.training.v1.RatingService"
_INFERENCE = "terroir.inference.v1.InferenceService"
_COVERS = "terroir.inference.v1.CoverService"
_DRAWN = ("drawn", "kept", "failed", "pictures", "failures")
"""What a preparation has come to."""
_MOVES = ("state", "phase", "phases", "dataset_version", "job", "pictures", "waiting_for", "end_time", "etag")
"""Fields of a registration that change while it goes on."""
_WAITS = ("wait",)
"""Why a job waits is known once the queue has looked at it."""
CASES: Final[dict[str, Case]] = {
    f"{_REGISTRY}.RegisterBase": Case(_unary(R, "RegisterBase", _register)),
    f"{_REGISTRY}.GetBase": Case(_unary(R, "GetBase", lambda _: reg.GetBaseRequest(name=BASE))),
    f"{_REGISTRY}.ListBases": Case(_unary(R, "ListBases", lambda _: reg.ListBasesRequest())),
    f"{_REGISTRY}.PublishVersion": Case(_publish),
    f"{_REGISTRY}.GetAdapter": Case(_unary(R, "GetAdapter", lambda w: reg.GetAdapterRequest(name=w.adapter(1)))),
    f"{_REGISTRY}.ListAdapters": Case(_unary(R, "ListAdapters", lambda _: reg.ListAdaptersRequest(page_size=5))),
    f"{_REGISTRY}.GetVersion": Case(_unary(R, "GetVersion", lambda w: reg.GetVersionRequest(name=w.adapter(1)))),
    f"{_REGISTRY}.ListVersions": Case(
        _unary(R, "ListVersions", lambda w: reg.ListVersionsRequest(adapter=w.adapter()))),
    f"{_REGISTRY}.FindByHash": Case(_unary(R, "FindByHash", lambda w: reg.FindByHashRequest(hash=_lookup(w)))),
    f"{_REGISTRY}.SetAlias": Case(_unary(R, "SetAlias", lambda w: reg.SetAliasRequest(
        adapter=(name := w.adapter()), alias="staging", version=f"{name}/versions/2", reason="r", request_id=_new()))),
    f"{_REGISTRY}.RollbackAlias": Case(_unary(R, "RollbackAlias", lambda w: reg.RollbackAliasRequest(
        adapter=_aliased(w), alias="staging", reason="r", request_id=_new()))),
    f"{_REGISTRY}.DeleteAlias": Case(_unary(R, "DeleteAlias", lambda w: reg.DeleteAliasRequest(
        adapter=_aliased(w), alias="staging", reason="r", request_id=_new()))),
    f"{_REGISTRY}.DeprecateVersion": Case(_unary(R, "DeprecateVersion", lambda w: reg.DeprecateVersionRequest(
        name=f"{w.adapter()}/versions/1", reason="r", request_id=_new()))),
    f"{_REGISTRY}.DownloadVersion": Case(
        _stream(R, "DownloadVersion", lambda w: reg.DownloadVersionRequest(name=w.adapter(1))), stream=True),
    f"{_REGISTRY}.GetTrainingPrint": Case(
        _unary(R, "GetTrainingPrint", lambda w: reg.GetTrainingPrintRequest(name=w.adapter(1)))),
    f"{_REGISTRY}.CheckCompatibility": Case(_unary(R, "CheckCompatibility", lambda w: reg.CheckCompatibilityRequest(
        adapters=[w.adapter(1), w.adapter(2)]))),
    f"{_REGISTRY}.GetLineage": Case(_unary(R, "GetLineage", lambda w: reg.GetLineageRequest(name=w.adapter(1)))),
    f"{_REGISTRY}.Watch": Case(
        _stream(R, "Watch", lambda _: reg.WatchRequest(), most=1), stream=True, endless=True,
        varies=("*",)),
    f"{_REGISTRY}.ListAuditEvents": Case(_unary(R, "ListAuditEvents", lambda w: reg.ListAuditEventsRequest(
        adapter=_aliased(w)))),
    f"{_REGISTRY}.GetPresets": Case(_unary(R, "GetPresets", lambda w: reg.GetPresetsRequest(adapter=w.adapter(1)))),
    f"{_REGISTRY}.SetPresets": Case(_unary(R, "SetPresets", lambda w: reg.SetPresetsRequest(
        presets=reg.AdapterPresets(adapter=w.adapter(1), presets=[reg.Preset(display_name="P", weight=0.5)]),
        request_id=_new()))),
    f"{_REGISTRY}.AddSample": Case(_unary(R, "AddSample", lambda w: reg.AddSampleRequest(
        adapter=w.adapter(1), picture=_picture(), request_id=_new()))),
    f"{_REGISTRY}.GetSample": Case(_unary(R, "GetSample", _sampled)),
    f"{_REGISTRY}.GetRecipe": Case(_unary(R, "GetRecipe", lambda w: reg.GetRecipeRequest(name=_recipe(w)))),
    f"{_REGISTRY}.ListRecipes": Case(_unary(R, "ListRecipes", lambda _: reg.ListRecipesRequest())),
    f"{_REGISTRY}.PutRecipe": Case(_unary(R, "PutRecipe", lambda w: reg.PutRecipeRequest(
        recipe=recipe_pb2.Recipe(name=f"recipes/p-{uuid.uuid4().hex[:12]}", style=recipe_of(w.adapter(1))),
        request_id=_new()))),
    f"{_REGISTRY}.DeleteRecipe": Case(_unary(R, "DeleteRecipe", lambda w: reg.DeleteRecipeRequest(
        name=_recipe(w), request_id=_new()))),
    f"{_REGIONS}.GetRegion": Case(_unary(G, "GetRegion", lambda w: region_pb2.GetRegionRequest(name=_region(w)))),
    f"{_REGIONS}.ListRegions": Case(_unary(G, "ListRegions", lambda _: region_pb2.ListRegionsRequest())),
    f"{_REGIONS}.PutRegion": Case(_unary(G, "PutRegion", lambda w: region_pb2.PutRegionRequest(
        region=region_pb2.Region(name=f"regions/Y-{uuid.uuid4().hex[:8]}", recipe=recipe_of(w.adapter(1))),
        request_id=_new()))),
    f"{_REGIONS}.DeleteRegion": Case(_unary(G, "DeleteRegion", lambda w: region_pb2.DeleteRegionRequest(
        name=_region(w), request_id=_new()))),
    f"{_REGIONS}.ResolveRegion": Case(_unary(G, "ResolveRegion", lambda w: region_pb2.ResolveRegionRequest(
        name=_region(w)))),
    f"{_DATASET}.CreateDataset": Case(_unary(D, "CreateDataset", lambda _: ds.CreateDatasetRequest(
        dataset_id=f"c-{uuid.uuid4().hex[:12]}", dataset=ds.Dataset(region="CN"), request_id=_new()))),
    f"{_DATASET}.GetDataset": Case(_unary(D, "GetDataset", lambda w: ds.GetDatasetRequest(name=w.dataset()))),
    f"{_DATASET}.ListDatasets": Case(_unary(D, "ListDatasets", lambda _: ds.ListDatasetsRequest(page_size=5))),
    f"{_DATASET}.ImportImages": Case(_import, stream=True, needs_answers=True),
    f"{_DATASET}.ListImages": Case(_unary(D, "ListImages", lambda w: ds.ListImagesRequest(dataset=w.dataset()))),
    f"{_DATASET}.DownloadImage": Case(_stream(D, "DownloadImage", lambda w: ds.DownloadImageRequest(
        dataset=(found := _image(w))[0], digest=found[1])), stream=True),
    f"{_DATASET}.CaptionImages": Case(
        _stream(D, "CaptionImages", lambda w: ds.CaptionImagesRequest(dataset=w.dataset(captions=False))), stream=True,
        # A retry has fewer pictures left to caption: what the state is in the end is what matters.
        varies=("*",)),
    f"{_DATASET}.UpdateCaption": Case(_unary(D, "UpdateCaption", lambda w: ds.UpdateCaptionRequest(
        dataset=(found := _image(w))[0], digest=found[1], text="a red teapot", request_id=_new()))),
    f"{_DATASET}.FreezeVersion": Case(_unary(D, "FreezeVersion", lambda w: ds.FreezeVersionRequest(
        dataset=w.dataset(), request_id=_new()))),
    f"{_DATASET}.GetVersion": Case(_unary(D, "GetVersion", lambda w: ds.GetVersionRequest(name=w.frozen()))),
    f"{_DATASET}.ListVersions": Case(_unary(D, "ListVersions", lambda w: ds.ListVersionsRequest(
        dataset=w.frozen().partition("/versions/")[0]))),
    f"{_TRAINING}.ValidateConfig": Case(_unary(T, "ValidateConfig", lambda w: tr.ValidateConfigRequest(
        config_yaml=_config(w)))),
    f"{_TRAINING}.CreateJob": Case(_unary(T, "CreateJob", lambda w: tr.CreateJobRequest(
        config_yaml=_config(w), adapter=f"adapters/j-{uuid.uuid4().hex[:12]}", request_id=_new())), varies=_WAITS),
    f"{_TRAINING}.GetJob": Case(_unary(T, "GetJob", lambda w: tr.GetJobRequest(name=w.job())), varies=_WAITS),
    f"{_TRAINING}.ListJobs": Case(_unary(T, "ListJobs", lambda _: tr.ListJobsRequest(page_size=5)), varies=_WAITS),
    f"{_TRAINING}.CancelJob": Case(_unary(T, "CancelJob", lambda w: tr.CancelJobRequest(name=w.job()))),
    f"{_TRAINING}.WatchJob": Case(
        _stream(T, "WatchJob", lambda w: tr.WatchJobRequest(name=w.job()), most=1), stream=True, endless=True,
        varies=_WAITS),
    f"{_TRAINING}.TailJobLogs": Case(
        _stream(T, "TailJobLogs", lambda w: tr.TailJobLogsRequest(name=w.job())), stream=True),
    f"{_TRAINING}.GetJobVerdict": Case(
        _unary(T, "GetJobVerdict", lambda w: tr.GetJobVerdictRequest(name=w.judged_job()))),
    f"{_TRAINING}.DownloadJobReport": Case(
        _stream(T, "DownloadJobReport", lambda w: tr.DownloadJobReportRequest(name=w.job())), stream=True,
        # It says when it was made.
        varies=("chunk",)),
    f"{_TRAINING}.GetQueue": Case(_unary(T, "GetQueue", lambda _: tr.GetQueueRequest()), varies=("*",)),
    f"{_TRAINING}.ListCheckpoints": Case(
        _unary(T, "ListCheckpoints", lambda w: tr.ListCheckpointsRequest(job=w.job()))),
    f"{_STYLES}.RegisterStyle": Case(_settled(
        "RegisterStyle", lambda w: w.style_request(), lambda request: f"styles/{request.style_id}"), varies=_MOVES),
    f"{_STYLES}.GetStyleRegistration": Case(_unary(
        Y, "GetStyleRegistration", lambda w: st.GetStyleRegistrationRequest(name=w.registered()))),
    f"{_STYLES}.ListStyleRegistrations": Case(_unary(
        Y, "ListStyleRegistrations", lambda w: st.ListStyleRegistrationsRequest(
            parent=w.registered().partition("/registrations/")[0]))),
    f"{_STYLES}.WatchStyleRegistration": Case(_stream(
        Y, "WatchStyleRegistration", lambda w: st.WatchStyleRegistrationRequest(name=w.registered()), most=1),
        stream=True, endless=True),
    f"{_STYLES}.CancelStyleRegistration": Case(_settled(
        "CancelStyleRegistration", lambda w: st.CancelStyleRegistrationRequest(name=w.registered()),
        lambda request: request.name.partition("/registrations/")[0]), varies=_MOVES),
    f"{_RATINGS}.CreateRatingSheet": Case(_sheet),
    f"{_RATINGS}.DownloadRatingSheet": Case(_stream(
        B, "DownloadRatingSheet", lambda w: rt.DownloadRatingSheetRequest(name=w.sheet())), stream=True),
    f"{_RATINGS}.SubmitRatings": Case(_unary(B, "SubmitRatings", lambda w: rt.SubmitRatingsRequest(
        sheet=w.sheet(), rater="Ana", request_id=_new(),
        ratings=[rt.Rating(picture="p01", taken_for=rt.TAKEN_FOR_REAL, on_brand=rt.ON_BRAND_YES)]))),
    f"{_RATINGS}.GetRatingSheet": Case(
        _unary(B, "GetRatingSheet", lambda w: rt.GetRatingSheetRequest(name=w.sheet()))),
    f"{_RATINGS}.ListRatingSheets": Case(_unary(
        B, "ListRatingSheets", lambda w: rt.ListRatingSheetsRequest(subject=w.job()))),
    f"{_INFERENCE}.Generate": Case(_stream(I, "Generate", lambda w: inf.GenerateRequest(
        prompt="a hill", width=32, height=32, steps=2, seeds=[3], request_id=_new(),
        adapters=[inf.AdapterWeight(adapter=w.adapter(1), weight=1)])), stream=True,
        # Times and tiers differ; the pictures, which must not, are compared by the test itself.
        varies=("*",)),
    f"{_INFERENCE}.PrefetchAdapters": Case(_unary(I, "PrefetchAdapters", lambda w: inf.PrefetchAdaptersRequest(
        adapters=[w.adapter(1)]))),
    f"{_INFERENCE}.ListResidentAdapters": Case(_unary(
        I, "ListResidentAdapters", lambda _: inf.ListResidentAdaptersRequest()), varies=("*",)),
    f"{_COVERS}.GetCovers": Case(_unary(C, "GetCovers", lambda w: cv.GetCoversRequest(
        queries=[cv.CoverQuery(contents=[w.cover().content])], shape=cv.CoverShape(width=32, height=32),
        with_data=True))),
    f"{_COVERS}.ReadCover": Case(_stream(C, "ReadCover", lambda w: cv.ReadCoverRequest(name=w.cover().picture)),
        stream=True),
    f"{_COVERS}.PrepareCovers": Case(_prepare, varies=("state", "end_time", *_DRAWN)),
    f"{_COVERS}.GetPreparation": Case(_unary(C, "GetPreparation", lambda w: cv.GetPreparationRequest(
        name=w.prepared()[0]))),
    f"{_COVERS}.ListPreparations": Case(_unary(C, "ListPreparations", lambda _: cv.ListPreparationsRequest(
        page_size=5)), varies=("*",)),
    f"{_COVERS}.WatchPreparation": Case(
        _stream(C, "WatchPreparation", lambda w: cv.WatchPreparationRequest(name=w.prepared()[0]), most=1),
        stream=True, endless=True),
    f"{_COVERS}.CancelPreparation": Case(_unary(C, "CancelPreparation", lambda w: cv.CancelPreparationRequest(
        name=w.endless_preparation())), varies=_DRAWN),
    f"{_COVERS}.InvalidateCovers": Case(_unary(C, "InvalidateCovers", lambda w: cv.InvalidateCoversRequest(
        contents=[w.cover().content], reason="r", request_id=_new()))),
    f"{_INFERENCE}.GetServerInfo": Case(_unary(I, "GetServerInfo", lambda _: inf.GetServerInfoRequest())),
}  # fmt: skip
