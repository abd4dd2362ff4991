"""Servers with regions and covers, for the parts of this area."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.adapters import base_key_table
from benchmarks.minio_place import minio_server
from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import cover_pb2_grpc
from terroir._proto.registry.v1 import recipe_pb2, region_pb2, registry_pb2
from terroir.common.grpc_client import channel
from terroir.inference.covers.contents import Content, Contents
from terroir.inference.covers.looks import Look, Worn
from terroir.inference.covers.shelf import Finished, Shelf
from terroir.inference.covers.units import Shape, Unit, content_digest
from terroir.inference.delivery.picture_files import PictureFormat
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.store.s3 import S3Location, S3Store
from terroir.tiny import BASE_DIR
from tests.integration.inference.hot_load_kit import Replica
from tests.integration.inference.inference_process import InferenceProcess, inference_process
from tests.integration.inference.inference_server import RunningInference

SHAPE: Final = Shape(64, 64, PictureFormat.WEBP)
COVERS: Final = 20
"""Of one call: a screen of a feed."""
_AT_ONCE: Final = 32


@dataclass
class Rig:
    """A registry and a bucket; inference comes and goes."""

    folder: Path
    registry: Replica
    location: S3Location

    @property
    def store(self) -> S3Store:
        """The bucket."""
        return S3Store(self.location)

    @contextmanager
    def serving(self, name: str, **settings: object) -> Iterator[Serving]:
        """An inference server of its own process, without anything in memory."""
        folder = self.folder / name
        folder.mkdir()
        own = {
            "registry_target": self.registry.target, "threads": 2, "store": f"s3://{self.location.bucket}",
            "store_endpoint": self.location.endpoint, "store_access_key_id": self.location.access_key_id,
            "store_secret_access_key": self.location.secret_access_key, **settings,
        }  # fmt: skip
        with (
            inference_process(folder, BASE_DIR, **own) as (process, calls),
            channel(process.target) as opened,
        ):
            yield Serving(process, calls, cover_pb2_grpc.CoverServiceStub(opened))

    def publish(self, number: int) -> None:
        """A further version of `adapters/style-{number}`, small."""
        self.registry.publish(f"style-{number}", _file(time.monotonic_ns() % 2**32))

    def alias(self, number: int, version: int) -> None:
        """Point its `production` at a version."""
        name = f"adapters/style-{number}"
        request = registry_pb2.SetAliasRequest(
            adapter=name, alias="production", version=f"{name}/versions/{version}", reason="benchmark"
        )
        self.registry.api.SetAlias(request, timeout=30)

    def region(self, code: str, number: int) -> None:
        """A region that wears `production` of a style."""
        worn = recipe_pb2.RecipeAdapter(adapter=f"adapters/style-{number}@production", weight=0.8)
        region = region_pb2.Region(name=f"regions/{code}", recipe=recipe_pb2.StyleRecipe(adapters=[worn]))
        self.registry.regions.PutRegion(region_pb2.PutRegionRequest(region=region), timeout=30)

    def look(self, number: int, version: int) -> Look:
        """What a style's version looks like."""
        name = f"adapters/style-{number}/versions/{version}"
        found = self.registry.api.GetVersion(registry_pb2.GetVersionRequest(name=name), timeout=30)
        return Look(found.base_digest, (Worn(found.name, found.file_digest, 0.8),))

    def shelve(self, contents: Sequence[str], looks: Sequence[Look], *, variants: int = 1) -> None:
        """Put covers into the bucket as if they had been drawn: files of 6 KB that hold no picture."""
        shelf, known = Shelf(self.store), Contents(self.store)

        def one(key: str) -> None:
            content = Content(key, f"a boat {key}")
            known.put(content)
            for look in looks:
                unit = Unit(content_digest(key), look.digest, SHAPE)
                files = [Finished(_bytes(f"{unit.key} {at}"), at, "") for at in range(variants)]
                shelf.write(unit, content.text_digest, time.time(), files, variants)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(one, contents))


@dataclass
class Serving:
    """An inference server and its calls."""

    process: InferenceProcess
    calls: RunningInference
    covers: Any

    def get(self, contents: Sequence[str], region: str, **fields: Any) -> list[pb.Cover]:
        """GetCovers of one region."""
        query = pb.CoverQuery(contents=contents, region=region)
        return list(self.covers.GetCovers(pb.GetCoversRequest(queries=[query], **fields), timeout=10).covers)


@contextmanager
def rig(folder: Path) -> Iterator[Rig | None]:
    """A registry on a MinIO; None where MinIO was not built."""
    with minio_server(folder / "minio") as minio, ExitStack() as stack:
        if minio is None:
            yield None
            return
        location = minio.location("covers")
        registry = Replica(folder / "data", BASE_DIR, minio.settings("registry", location))
        (folder / "data").mkdir()
        registry.start()
        stack.callback(registry.kill)
        yield Rig(folder, registry, location)


def _bytes(seed: str) -> bytes:
    block = hashlib.sha256(seed.encode()).digest()
    return block * 192


def _file(seed: int) -> bytes:
    """Rank 4 on the attention's queries and values."""
    chance = np.random.default_rng(seed)
    modules = {
        layer: LoraModule(
            chance.standard_normal((4, shape[1]), dtype=np.float32) * np.float32(0.05),
            chance.standard_normal((shape[0], 4), dtype=np.float32) * np.float32(0.05),
            alpha=4.0,
        )
        for layer, shape in base_key_table().items()
        if layer.endswith(("attn1.to_q", "attn1.to_v"))
    }
    return to_kohya(Adapter(modules), {})
