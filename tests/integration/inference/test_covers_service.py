"""Covers for real: prepared in spare rows, found, made stale by a moved alias, drawn anew, withdrawn."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.registry.v1 import recipe_pb2, region_pb2, registry_pb2
from terroir.inference.settings import InferenceSettings
from tests.integration.inference.hot_load_kit import Followed, followed_registry
from tests.integration.inference.inference_server import running_inference, until
from tests.integration.inference.test_hot_load import adapter_file
from tests.tools.minio_server import MinioServer

pytestmark = pytest.mark.slow
STEPS = 20


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("covers")
    with followed_registry(folder, tiny_base, cover_judge_model=clip()) as rig:
        yield rig


def clip() -> Path:
    from terroir.tiny import CLIP_DIR

    return CLIP_DIR


def alias(rig: Followed, adapter: str, number: int) -> None:
    """Point `production` at a version."""
    request = registry_pb2.SetAliasRequest(
        adapter=f"adapters/{adapter}",
        alias="production",
        version=f"adapters/{adapter}/versions/{number}",
        reason="test",
    )
    rig.publisher.api.SetAlias(request, timeout=30)


def region(rig: Followed, code: str, adapter: str, parent: str = "") -> None:
    """A region that wears `production` of an adapter."""
    worn = recipe_pb2.StyleRecipe(
        adapters=[recipe_pb2.RecipeAdapter(adapter=f"adapters/{adapter}@production", weight=1)]
    )
    put = region_pb2.PutRegionRequest(region=region_pb2.Region(name=f"regions/{code}", parent=parent, recipe=worn))
    rig.publisher.regions.PutRegion(put, timeout=30)


def ask(rig: Followed, *keys: str, region: str, **fields: Any) -> list[pb.Cover]:
    query = pb.CoverQuery(contents=keys, region=f"regions/{region}" if region else "", count=fields.pop("count", 1))
    request = pb.GetCoversRequest(queries=[query], shape=pb.CoverShape(width=32, height=32), **fields)
    return list(rig.inference.covers.GetCovers(request, timeout=10).covers)


def prepare(rig: Followed, *keys: str, regions: list[str], variants: int = 1) -> pb.CoverPreparation:
    """Prepare and wait for the end."""
    begun = rig.inference.covers.PrepareCovers(
        pb.PrepareCoversRequest(
            contents=[pb.CoverContent(key=key, prompt=f"a {key} by a river") for key in keys],
            regions=[f"regions/{code}" if code else "" for code in regions], variants=variants,
            shape=pb.CoverShape(width=32, height=32),
        ),
        timeout=30,
    )  # fmt: skip
    *_, last = rig.inference.covers.WatchPreparation(pb.WatchPreparationRequest(name=begun.name), timeout=120)
    ended: pb.CoverPreparation = last.preparation
    return ended


def test_a_style_goes_through_its_life(rig: Followed) -> None:
    """One story, as each part of it stands on the one before."""
    for number in (1, 2):
        rig.publisher.publish("ink", adapter_file(number))
    rig.publisher.publish("hotpot", adapter_file(9))
    alias(rig, "ink", 1)
    alias(rig, "hotpot", 1)
    region(rig, "CN", "hotpot")
    region(rig, "CN-ZJ", "ink")

    ended = prepare(rig, "teapot", "cat", regions=["CN", "CN-ZJ", ""], variants=2)
    assert (ended.state, ended.total, ended.drawn, ended.failed) == (pb.PREPARATION_STATE_SUCCEEDED, 6, 6, 0)
    assert ended.pictures == 18
    covers = ask(rig, "teapot", "cat", region="CN-ZJ", count=2, with_data=True)
    assert [(cover.content, cover.variant) for cover in covers] == [
        ("teapot", 0),
        ("teapot", 1),
        ("cat", 0),
        ("cat", 1),
    ]
    assert {(cover.rung, cover.source) for cover in covers} == {(pb.RUNG_REGION, "regions/CN-ZJ")}
    for cover in covers:
        picture = Image.open(io.BytesIO(cover.data))
        assert (picture.size, picture.format) == ((32, 32), "WEBP") and len(cover.data) == cover.size_bytes
        read = b"".join(part.data for part in rig.inference.covers.ReadCover(pb.ReadCoverRequest(name=cover.picture)))
        assert read == cover.data
    assert len({cover.digest for cover in covers}) == 4

    # A district has no style of its own: its province's.
    assert ask(rig, "teapot", region="330106")[0].source == "regions/CN-ZJ"
    # What nobody prepared falls to the caller's own, and nobody waits for it.
    nobody = ask(rig, "unknown", region="CN-ZJ", default_picture="static/fallback.webp")[0]
    assert (nobody.rung, nobody.picture) == (pb.RUNG_DEFAULT, "static/fallback.webp")

    # The alias moves: the old cover serves, marked, until the new one is drawn unasked.
    alias(rig, "ink", 2)
    until(lambda: ask(rig, "teapot", region="CN-ZJ")[0].stale, timeout=10)
    until(lambda: not ask(rig, "teapot", region="CN-ZJ")[0].stale, timeout=60)
    fresh = ask(rig, "teapot", region="CN-ZJ", with_data=True)[0]
    assert fresh.rung == pb.RUNG_REGION and fresh.digest not in {cover.digest for cover in covers}
    assert worn(fresh.data) == ["adapters/ink/versions/2"]

    # Withdrawn for cause: the next rung answers at once.
    rig.publisher.withdraw("adapters/ink/versions/2", "rights")
    until(lambda: ask(rig, "teapot", region="CN-ZJ")[0].source == "regions/CN", timeout=10)
    assert ask(rig, "teapot", region="CN-ZJ")[0].rung == pb.RUNG_PARENT

    # Rolled back, it is the first version's covers again: they were never removed.
    alias(rig, "ink", 1)
    until(lambda: ask(rig, "teapot", region="CN-ZJ")[0].source == "regions/CN-ZJ", timeout=10)
    again = ask(rig, "teapot", region="CN-ZJ")[0]
    assert (again.digest, again.stale) == (covers[0].digest, False)


def test_a_killed_engine_costs_a_preparation_nothing_but_time(rig: Followed) -> None:
    begun = rig.inference.covers.PrepareCovers(
        pb.PrepareCoversRequest(
            contents=[pb.CoverContent(key=f"boat {number}", prompt=f"a boat {number}") for number in range(6)],
            regions=[""], variants=1, shape=pb.CoverShape(width=32, height=32),
        ),
        timeout=30,
    )  # fmt: skip
    watch = rig.inference.covers.WatchPreparation(pb.WatchPreparationRequest(name=begun.name), timeout=240)
    killed = 0
    for seen in watch:
        if seen.preparation.drawn >= 1 and not killed:
            killed = rig.inference.engine_pid()
            os.kill(killed, signal.SIGKILL)
            # Its base is known: while the next engine loads, what is drawn is answered.
            until(lambda: not rig.inference.serving())
            boats = ask(rig, *(f"boat {number}" for number in range(6)), region="")
            assert pb.RUNG_REGION in {cover.rung for cover in boats}
    ended = seen.preparation
    assert killed and (ended.state, ended.drawn + ended.kept, ended.failed) == (pb.PREPARATION_STATE_SUCCEEDED, 6, 0)
    assert {cover.rung for cover in ask(rig, *(f"boat {number}" for number in range(6)), region="")} == {pb.RUNG_REGION}


def test_a_bucket_that_is_gone_leaves_what_is_in_memory(
    rig: Followed, tiny_base: Path, own_minio: MinioServer, tmp_path: Path
) -> None:
    location = own_minio.location()
    settings = InferenceSettings(
        data_dir=tmp_path, port=0, base="tiny", base_model=str(tiny_base), registry_target=rig.followed.target,
        threads=1, store=f"s3://{location.bucket}", store_endpoint=location.endpoint,
        store_access_key_id=location.access_key_id, store_secret_access_key=location.secret_access_key,
    )  # fmt: skip
    with running_inference(settings) as inference:
        inference.wait_until_serving()
        beside = replace(rig, inference=inference)
        assert prepare(beside, "cat", regions=[""]).drawn == 1
        assert ask(beside, "cat", region="", with_data=True)[0].data
        own_minio.stop()
        for _ in range(3):
            known, unknown = ask(beside, "cat", "nobody", region="", with_data=True, default_picture="own")
            assert known.rung == pb.RUNG_REGION and known.data
            assert (unknown.rung, unknown.picture, unknown.lack) == (
                pb.RUNG_DEFAULT, "own", pb.LACK_STORE_UNREACHABLE,
            )  # fmt: skip
        with pytest.raises(grpc.RpcError) as refused:
            prepare(beside, "dog", regions=[""])
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        own_minio.start()
        assert prepare(beside, "dog", regions=[""]).drawn == 1


def worn(file: bytes) -> list[str]:
    """Versions that a file's own provenance names."""
    text = Image.open(io.BytesIO(file)).info["xmp"].decode()
    told = text[text.index("{") : text.rindex("}") + 1].replace("&quot;", '"')
    return [adapter["version"] for adapter in json.loads(told)["adapters"]]
