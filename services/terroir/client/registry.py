"""Adapters and aliases from a program."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.client.calls import UNARY_SECONDS, chunks, new_request_id, typed_errors, typed_stream
from terroir.common.errors import ResourceExhausted, Unavailable

_COMPARING_SECONDS: Final = 300.0
_PAGE_SIZE: Final = 100
_RECONNECT_STEP_SECONDS: Final = 0.5
_LONGEST_RECONNECT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class AdapterFile:
    """A downloaded adapter, its digest checked."""

    version: pb.AdapterVersion
    file_name: str
    data: bytes


class Registry:
    """Calls of RegistryService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def publish(
        self, header: pb.PublishHeader, data: bytes, *, on_sent: Callable[[int], None] = lambda _bytes: None
    ) -> pb.AdapterVersion:
        """Publish an adapter file; size, digest and request_id of `header` are filled in here.

        `on_sent` hears how many bytes have gone out.
        """
        filled = pb.PublishHeader()
        filled.CopyFrom(header)
        filled.size_bytes, filled.file_digest = len(data), hashlib.sha256(data).hexdigest()
        filled.request_id = header.request_id or new_request_id()

        def messages() -> Iterator[pb.PublishVersionRequest]:
            yield pb.PublishVersionRequest(header=filled)
            for start, part in chunks(data):
                yield pb.PublishVersionRequest(chunk=part)
                on_sent(start + len(part))

        with typed_errors():
            return self._stub.PublishVersion(messages(), timeout=300.0)

    def adapter(self, name: str) -> pb.Adapter:
        """One adapter with its aliases, by `adapters/{id}`."""
        with typed_errors():
            return self._stub.GetAdapter(pb.GetAdapterRequest(name=name), timeout=UNARY_SECONDS)

    def adapters(self) -> Iterator[pb.Adapter]:
        """All adapters whose newest version is not deprecated, page by page."""
        return self.search(pb.AdapterFilter())

    def search(self, conditions: pb.AdapterFilter) -> Iterator[pb.Adapter]:
        """Adapters that meet every condition, by identifier, page by page."""
        token = ""
        while True:
            request = pb.ListAdaptersRequest(page_token=token, page_size=_PAGE_SIZE, filter=conditions)
            with typed_errors():
                page = self._stub.ListAdapters(request, timeout=UNARY_SECONDS)
            yield from page.adapters
            if not (token := page.next_page_token):
                return

    def find(self, digest: str) -> list[pb.AdapterVersion]:
        """Versions with a hash that begins with these 8 … 64 hexadecimal digits, oldest first, at most 200."""
        with typed_errors():
            return list(self._stub.FindByHash(pb.FindByHashRequest(hash=digest), timeout=UNARY_SECONDS).versions)

    def watch(self, resume_token: str = "") -> Iterator[pb.WatchResponse]:
        """Changes from now on, or after a token, without end: a lost connection is taken up where it broke.

        Also yields messages without a change, which tell that the watch has begun or goes on. Changes may come twice
        after a reconnect, never not at all. Raises what the first connection does, and later what no retry can mend.
        """
        token, begun, pause = resume_token, False, 0.0
        while True:
            try:
                for message in typed_stream(self._stub.Watch(pb.WatchRequest(resume_token=token))):
                    token, begun, pause = message.resume_token, True, 0.0
                    yield message
            except (Unavailable, ResourceExhausted):
                if not begun:
                    raise
            time.sleep(pause)
            pause = min(pause + _RECONNECT_STEP_SECONDS, _LONGEST_RECONNECT_SECONDS)

    def version(self, name: str, *, sticky_key: str = "", strong: bool = False) -> pb.AdapterVersion:
        """One version, by number, alias (`adapters/{id}@{alias}`) or the newest (`adapters/{id}`).

        Callers with one `sticky_key` get one side of an alias's canary; `strong` reads the store itself.
        """
        request = pb.GetVersionRequest(name=name, sticky_key=sticky_key, strong=strong)
        with typed_errors():
            return self._stub.GetVersion(request, timeout=UNARY_SECONDS)

    def versions(self, adapter: str) -> Iterator[pb.AdapterVersion]:
        """All versions of an adapter, newest first."""
        token = ""
        while True:
            request = pb.ListVersionsRequest(adapter=adapter, page_token=token)
            with typed_errors():
                page = self._stub.ListVersions(request, timeout=UNARY_SECONDS)
            yield from page.versions
            if not (token := page.next_page_token):
                return

    def set_alias(
        self,
        adapter: str,
        alias: str,
        version: str,
        *,
        reason: str,
        etag: str = "",
        canary: pb.Canary | None = None,
        request_id: str | None = None,
    ) -> pb.Alias:
        """Point an alias at a version, and a share of its callers at a canary, once for one `request_id`."""
        request = pb.SetAliasRequest(
            adapter=adapter, alias=alias, version=version, reason=reason, etag=etag, canary=canary,
            request_id=request_id or new_request_id(),
        )  # fmt: skip
        with typed_errors():
            return self._stub.SetAlias(request, timeout=UNARY_SECONDS)

    def rollback_alias(self, adapter: str, alias: str, *, reason: str, etag: str = "") -> pb.Alias:
        """Point an alias at the version before, ending its canary; again goes one further."""
        request = pb.RollbackAliasRequest(
            adapter=adapter, alias=alias, reason=reason, etag=etag, request_id=new_request_id()
        )
        with typed_errors():
            return self._stub.RollbackAlias(request, timeout=UNARY_SECONDS)

    def delete_alias(self, adapter: str, alias: str, *, reason: str, etag: str = "") -> None:
        """Remove an alias; its history stays."""
        request = pb.DeleteAliasRequest(
            adapter=adapter, alias=alias, reason=reason, etag=etag, request_id=new_request_id()
        )
        with typed_errors():
            self._stub.DeleteAlias(request, timeout=UNARY_SECONDS)

    def deprecate(
        self, version: str, *, reason: str, for_cause: bool = False, replacement: str = "", reinstate: bool = False
    ) -> pb.AdapterVersion:
        """Mark a version as no longer to be used, or take that back."""
        request = pb.DeprecateVersionRequest(
            name=version, reason=reason, for_cause=for_cause, replacement=replacement, reinstate=reinstate,
            request_id=new_request_id(),
        )  # fmt: skip
        with typed_errors():
            return self._stub.DeprecateVersion(request, timeout=UNARY_SECONDS)

    def audit(self, adapter: str) -> Iterator[pb.AuditEvent]:
        """What was changed of an adapter by whom, newest first."""
        token = ""
        while True:
            request = pb.ListAuditEventsRequest(adapter=adapter, page_token=token)
            with typed_errors():
                page = self._stub.ListAuditEvents(request, timeout=UNARY_SECONDS)
            yield from page.events
            if not (token := page.next_page_token):
                return

    def lineage(self, name: str) -> pb.GetLineageResponse:
        """What a version was made of and what came of it (see `Client.lineage`, which adds the pictures)."""
        with typed_errors():
            return self._stub.GetLineage(pb.GetLineageRequest(name=name), timeout=UNARY_SECONDS)

    def compatibility(self, adapters: Sequence[str]) -> pb.CheckCompatibilityResponse:
        """How 2 … 8 adapters get along when stacked; raises FailedPrecondition (COMPATIBILITY_BASES_DIFFER)."""
        with typed_errors():
            return self._stub.CheckCompatibility(
                pb.CheckCompatibilityRequest(adapters=adapters), timeout=_COMPARING_SECONDS
            )

    def download(
        self,
        name: str,
        adapter_format: pb.AdapterFormat.ValueType = pb.ADAPTER_FORMAT_KOHYA,
        *,
        private_header: bool = False,
    ) -> AdapterFile:
        """An adapter file; raises Unavailable (DOWNLOAD_CORRUPT) if what arrived is not what was announced.

        `private_header` rewrites the header once the file is here: it loads as before, and no longer says which base it
        is for, nor its description and tags. The tensors stay, byte by byte; the digest of the file is another.
        """
        header = pb.DownloadHeader()
        parts: list[bytes] = []
        request = pb.DownloadVersionRequest(name=name, format=adapter_format)
        for answer in typed_stream(self._stub.DownloadVersion(request, timeout=300.0)):
            if answer.WhichOneof("message") == "header":
                header = answer.header
            else:
                parts.append(answer.chunk)
        data = b"".join(parts)
        if hashlib.sha256(data).hexdigest() != header.digest:
            raise Unavailable(f"download of {name} arrived damaged; try again", reason="DOWNLOAD_CORRUPT")
        return AdapterFile(header.version, header.file_name, _private(data) if private_header else data)

    def training_print(self, name: str) -> bytes | None:
        """A version's training print, None if it has none (`terroir.scoring.training_print` reads it).

        Raises Unavailable (DOWNLOAD_CORRUPT) if what arrived is not what was announced.
        """
        version = self.version(name)
        if not version.training_print_digest:
            return None
        with typed_errors():
            request = pb.GetTrainingPrintRequest(name=version.name)
            data = self._stub.GetTrainingPrint(request, timeout=UNARY_SECONDS).training_print
        if hashlib.sha256(data).hexdigest() != version.training_print_digest:
            raise Unavailable(f"the training print of {name} arrived damaged; try again", reason="DOWNLOAD_CORRUPT")
        return data


def _private(data: bytes) -> bytes:
    # numpy: only who asks for it needs it
    from terroir.lora.formats.headers import HeaderProfile, of_profile
    from terroir.lora.safetensors_bytes import with_metadata
    from terroir.lora.safetensors_header import read_header

    metadata = read_header(data).metadata
    return with_metadata(data, of_profile(metadata, HeaderProfile.PRIVATE))
