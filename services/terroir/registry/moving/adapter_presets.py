"""How an adapter is best used: its presets and sample pictures, read and changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from terroir.common.errors import InvalidArgument
from terroir.common.principal import Principal, Role
from terroir.common.validation import ensure_digest, ensure_text
from terroir.registry.adapters import Adapters
from terroir.registry.errors import SampleNotFound
from terroir.registry.index.fold import Index
from terroir.registry.moving.preset_shelf import PresetShelf
from terroir.registry.moving.presets import Preset, ensure_presets
from terroir.registry.moving.samples import MAX_CAPTION_CHARACTERS, Sample, read_sample
from terroir.registry.moving.state import AdapterState, HeldState, StateChange, States, held_state
from terroir.registry.names import VersionRef, adapter_name, parse_version
from terroir.store.blobs import Blobs


@dataclass(frozen=True)
class AdapterPresets:
    """Presets and samples of one adapter, as they are."""

    adapter: str
    presets: tuple[Preset, ...]
    """The first is the default."""
    samples: tuple[Sample, ...]
    """Newest first."""
    etag: str
    """Of the adapter's whole state: a moved alias changes it too. Empty before any change."""


class PresetBook:
    """The presets and samples of all adapters; safe for threads."""

    def __init__(self, states: States, adapters: Adapters, blobs: Blobs, index: Index) -> None:
        """Reads come from the index, which may lag behind another replica's write by a second."""
        self._states = states
        self._adapters = adapters
        self._blobs = blobs
        self._index = index

    def get(self, adapter: str) -> AdapterPresets:
        """Presets and samples, none where nobody set any; raises AdapterNotFound."""
        self._ensure_adapter(adapter)
        held = self._held(adapter)
        return _shown(adapter, held.state.shelf, held.etag)

    def set(
        self, adapter: str, presets: Sequence[Preset], principal: Principal, *, op_id: str, etag: str = ""
    ) -> AdapterPresets:
        """Replace the presets, once however often this is repeated with one `op_id`; the samples stay.

        Raises InvalidArgument, PermissionDenied, AdapterNotFound, EtagMismatch when `etag` is not empty and the state
        changed since, and OperationConflict when `op_id` did something else.
        """
        principal.require(Role.STYLIST, f"set presets of {adapter_name(adapter)}")
        ensure_presets(presets, "presets.presets")
        self._ensure_adapter(adapter)

        def update(state: AdapterState) -> tuple[AdapterState, StateChange]:
            shelf = state.shelf.with_presets(presets)
            change = StateChange(
                action="set_presets",
                name=adapter_name(adapter),
                actor=principal.name,
                request_id=op_id,
                before=_names(state.shelf.presets),
                after=_names(presets),
            )
            return replace(state, shelf=shelf), change

        request = {"action": "set_presets", "presets": [preset.to_body() for preset in presets]}
        held = self._states.change(adapter, update, op_id=op_id, request=request, etag=etag)
        return _shown(adapter, held.state.shelf, held.etag)

    def add_sample(
        self, adapter: str, picture: bytes, principal: Principal, *, op_id: str, caption: str = "", version: str = ""
    ) -> Sample:
        """Keep a picture as it is; beyond MAX_SAMPLES the oldest gives way.

        Raises SampleInvalid, InvalidArgument, PermissionDenied, AdapterNotFound, VersionNotFound and OperationConflict.
        """
        principal.require(Role.STYLIST, f"add samples to {adapter_name(adapter)}")
        ensure_text(caption, "caption", MAX_CAPTION_CHARACTERS)
        number = self._version_number(adapter, version)
        sample = read_sample(picture, caption=caption, version=number)
        self._blobs.put(picture)

        def update(state: AdapterState) -> tuple[AdapterState, StateChange]:
            change = StateChange(
                action="add_sample",
                name=adapter_name(adapter),
                actor=principal.name,
                request_id=op_id,
                after=f"{sample.media_type} {sample.width}x{sample.height} {sample.digest[:12]}",
            )
            return replace(state, shelf=state.shelf.with_sample(sample)), change

        request: dict[str, Any] = {"action": "add_sample", "sample": sample.to_body()}
        self._states.change(adapter, update, op_id=op_id, request=request)
        return sample

    def sample(self, adapter: str, digest: str) -> tuple[Sample, bytes]:
        """A sample and its file; raises AdapterNotFound, SampleNotFound, or CorruptBlob."""
        ensure_digest(digest, "digest")
        self._ensure_adapter(adapter)
        found = self._held(adapter).state.shelf.sample(digest)
        if found is None:
            raise SampleNotFound(
                f"{adapter_name(adapter)} has no sample {digest} (GetPresets lists them)",
                metadata={"adapter": adapter_name(adapter), "digest": digest},
            )
        return found, self._blobs.get(digest)

    def _held(self, adapter: str) -> HeldState:
        known = self._index.state(adapter)
        return held_state(known) if known is not None else self._states.get(adapter)

    def _ensure_adapter(self, adapter: str) -> None:
        self._adapters.resolve(VersionRef(adapter))

    def _version_number(self, adapter: str, version: str) -> int | None:
        if not version:
            self._ensure_adapter(adapter)
            return None
        owner, number = parse_version(version)
        if owner != adapter:
            raise InvalidArgument(
                f"{version} is no version of {adapter_name(adapter)}, whose sample this shall be; name one of its own",
                reason="SAMPLE_OF_ANOTHER_ADAPTER",
                field="version",
            )
        self._adapters.resolve(VersionRef(adapter, number))
        return number


def _shown(adapter: str, shelf: PresetShelf, etag: str) -> AdapterPresets:
    return AdapterPresets(adapter, shelf.presets, shelf.samples, etag)


def _names(presets: Sequence[Preset]) -> str:
    return ", ".join(preset.display_name for preset in presets)
