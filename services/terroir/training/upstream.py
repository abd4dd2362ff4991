"""Calls to the dataset and registry services, whose addresses an operator set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc

from terroir._proto.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2, registry_pb2_grpc
from terroir.common.credentials import CallerCredentials
from terroir.common.grpc_client import channel, error_from_rpc
from terroir.common.validation import is_region_code
from terroir.training.artifacts.pretrained import PublishedAdapter
from terroir.training.engine.ports import Picture

if TYPE_CHECKING:
    from terroir.common.otel import Tracing

_SECONDS: Final = 30.0
_STREAM_SECONDS: Final = 300.0
_CHUNK_BYTES: Final = 512 * 1024
_TRAINED: Final = (dataset_pb2.VERDICT_PASS, dataset_pb2.VERDICT_WARN)


@dataclass(frozen=True)
class FrozenDataset:
    """A frozen version: what training needs to know of it."""

    name: str
    """`datasets/{id}/versions/{number}`."""
    digest: str
    trigger_word: str
    rights_statement: str
    region: str
    """Code of the region that the style belongs to; may be empty."""
    pictures: tuple[tuple[str, str, str], ...]
    """Digest, file name and caption of every picture that is trained on."""


class DatasetService:
    """Reads frozen datasets."""

    def __init__(self, target: str, credentials: CallerCredentials, tracing: Tracing | None = None) -> None:
        self._channel = channel(target, credentials, tracing)
        self._stub = dataset_pb2_grpc.DatasetServiceStub(self._channel)

    def version(self, name: str) -> FrozenDataset:
        """A version by name, or a dataset's newest; raises what the service raises."""
        with _typed():
            version = self._stub.GetVersion(dataset_pb2.GetVersionRequest(name=name), timeout=_SECONDS)
            parent = dataset_pb2.GetDatasetRequest(name=version.name.partition("/versions/")[0])
            dataset = self._stub.GetDataset(parent, timeout=_SECONDS)
        return FrozenDataset(
            name=version.name,
            digest=version.digest,
            trigger_word=version.trigger_word,
            rights_statement=version.rights_statement,
            region=dataset.region,
            pictures=tuple(
                (image.digest, image.file_name, image.caption.text)
                for image in version.images
                if image.verdict in _TRAINED
            ),
        )

    def pictures(self, dataset: FrozenDataset) -> Iterator[Picture]:
        """The version's pictures, in its order."""
        parent = dataset.name.partition("/versions/")[0]
        for digest, file_name, caption in dataset.pictures:
            request = dataset_pb2.DownloadImageRequest(dataset=parent, digest=digest)
            with _typed():
                data = b"".join(part.data for part in self._stub.DownloadImage(request, timeout=_STREAM_SECONDS))
            yield Picture(name=file_name, data=data, caption=caption)

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()


@dataclass(frozen=True)
class Publication:
    """An adapter file on its way to the registry."""

    adapter: str
    base: str
    base_digest: str
    trigger_word: str
    job: str
    checkpoint: str
    """`jobs/{id}/checkpoints/{step}`: what the file was made of."""
    dataset_version: str
    dataset_digest: str
    config_digest: str
    code_version: str
    file_digest: str
    region: str
    """Code of the region that the dataset belongs to; may be empty."""
    data: bytes
    parent: str = ""
    """Version that training went on from, `adapters/{id}/versions/{number}`; empty for a fresh start."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Measured figures by name."""
    training_print: bytes = b""
    """What tells copies of the training pictures; empty where none was made."""


class RegistryService:
    """Reads bases and publishes adapters."""

    def __init__(self, target: str, credentials: CallerCredentials, tracing: Tracing | None = None) -> None:
        self._channel = channel(target, credentials, tracing)
        self._stub = registry_pb2_grpc.RegistryServiceStub(self._channel)

    def base_digest(self, base: str) -> str:
        """Digest of `bases/{base}`; raises what the service raises."""
        with _typed():
            return str(self._stub.GetBase(registry_pb2.GetBaseRequest(name=f"bases/{base}"), timeout=_SECONDS).digest)

    def region_of(self, adapter: str) -> str:
        """Code of the region of the newest version of `adapters/{id}`, or empty; raises what the service raises."""
        with _typed():
            found = self._stub.GetVersion(registry_pb2.GetVersionRequest(name=adapter), timeout=_SECONDS)
        return str(found.region).removeprefix("regions/")

    def adapter_version(self, name: str) -> PublishedAdapter:
        """A version by number, alias or the newest, as the store has it now; raises what the service raises."""
        with _typed():
            found = self._stub.GetVersion(registry_pb2.GetVersionRequest(name=name, strong=True), timeout=_SECONDS)
        return PublishedAdapter(
            name=found.name,
            base=found.base.removeprefix("bases/"),
            base_digest=found.base_digest,
            file_digest=found.file_digest,
            rank=found.rank,
            region=found.region.removeprefix("regions/"),
            deprecation=found.deprecation.reason,
            replacement=found.deprecation.replacement,
            withdrawn=found.deprecation.for_cause,
        )

    def origin(self, version: str) -> tuple[str, str]:
        """Job and dataset version that a version was made of, empty if not known; raises what the service raises."""
        with _typed():
            found = self._stub.GetVersion(registry_pb2.GetVersionRequest(name=version), timeout=_SECONDS).lineage
        return str(found.job), str(found.dataset_version)

    def adapter_file(self, name: str) -> bytes:
        """The kohya file of a version; raises what the service raises. Who knows its digest checks it."""
        request = registry_pb2.DownloadVersionRequest(name=name, format=registry_pb2.ADAPTER_FORMAT_KOHYA)
        with _typed():
            return b"".join(part.chunk for part in self._stub.DownloadVersion(request, timeout=_STREAM_SECONDS))

    def publish(self, publication: Publication) -> str:
        """Publish once however often it is called for one job; returns the version's name."""
        with _typed():
            return str(self._stub.PublishVersion(_messages(publication), timeout=_STREAM_SECONDS).name)

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()


def _messages(publication: Publication) -> Iterator[registry_pb2.PublishVersionRequest]:
    header = registry_pb2.PublishHeader(
        adapter=f"adapters/{publication.adapter}",
        base=f"bases/{publication.base}",
        base_digest=publication.base_digest,
        size_bytes=len(publication.data),
        file_digest=publication.file_digest,
        trigger_word=publication.trigger_word,
        lineage=registry_pb2.Lineage(
            job=publication.job,
            checkpoint=publication.checkpoint,
            dataset_version=publication.dataset_version,
            dataset_digest=publication.dataset_digest,
            config_digest=publication.config_digest,
            code_version=publication.code_version,
            parent=publication.parent,
        ),
        request_id=publication.job,
        metrics=publication.metrics,
        region=f"regions/{publication.region}" if is_region_code(publication.region) else "",
        training_print=publication.training_print,
    )
    yield registry_pb2.PublishVersionRequest(header=header)
    for start in range(0, len(publication.data), _CHUNK_BYTES):
        yield registry_pb2.PublishVersionRequest(chunk=publication.data[start : start + _CHUNK_BYTES])


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error
