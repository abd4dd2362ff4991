"""The adapter that a run goes on from: found when the job is made, fetched and read where it trains."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from terroir.common.errors import NotFound
from terroir.lora.adapter import Adapter
from terroir.lora.base_folder import read_layers
from terroir.lora.errors import LoraError
from terroir.lora.formats import parse
from terroir.training.config import TrainConfig
from terroir.training.errors import ConfigInvalid, PretrainedMismatch, PretrainedUnusable

_FIELD: Final = "pretrained_lora"
_ID: Final = "[a-z][a-z0-9-]{0,62}"
_REFERENCE: Final = re.compile(f"adapters/{_ID}(?:/versions/[1-9][0-9]{{0,8}}|@{_ID})?")


@dataclass(frozen=True)
class PublishedAdapter:
    """A version of the registry: what training needs to know of it."""

    name: str
    """`adapters/{id}/versions/{number}`."""
    base: str
    """Identifier of its base."""
    base_digest: str
    file_digest: str
    """SHA-256 (hex) of its kohya file."""
    rank: int
    region: str = ""
    """Code of the region that it was made for."""
    deprecation: str = ""
    """Why it must no longer be used; empty if it may."""
    replacement: str = ""
    """What to use instead, if it was said."""
    withdrawn: bool = False
    """Whether it is deprecated for cause: nothing more may be made of it."""


class Versions(Protocol):
    """What is asked of the registry."""

    def adapter_version(self, name: str) -> PublishedAdapter:
        """A version by number, alias, or the newest; raises NotFound."""
        ...


class Files(Versions, Protocol):
    """What is asked of the registry where a job trains."""

    def adapter_file(self, name: str) -> bytes:
        """The kohya file of a version; raises NotFound and Unavailable."""
        ...


def resolve(versions: Versions, config: TrainConfig, base: str, base_digest: str) -> str:
    """The exact version that `pretrained_lora` means now; empty where the run starts afresh.

    So that what an alias does later changes nothing: a retry and a resume start from the same weights. Raises
    ConfigInvalid (PRETRAINED_NAME), NotFound (PRETRAINED_NOT_FOUND), PretrainedMismatch and PretrainedUnusable.
    """
    if not config.pretrained_lora:
        return ""
    asked = _reference(config.pretrained_lora)
    try:
        found = versions.adapter_version(asked)
    except NotFound as error:
        raise NotFound(
            f"pretrained_lora {asked} cannot be gone on from: {error}", reason="PRETRAINED_NOT_FOUND", field=_FIELD
        ) from error
    if found.deprecation:
        instead = f"; use {found.replacement}" if found.replacement else "; choose another version"
        raise PretrainedUnusable(f"{found.name} is deprecated: {found.deprecation}{instead}", field=_FIELD)
    if (found.base, found.base_digest) != (base, base_digest):
        raise PretrainedMismatch(
            f"{found.name} was trained on bases/{found.base} ({found.base_digest[:12]}), this run trains on "
            f"bases/{base} ({base_digest[:12]}); set base_model to {found.base}, or leave pretrained_lora out",
            field=_FIELD,
        )
    wanted = max(config.lora_rank, config.conv_rank or 0)
    if found.rank != wanted:
        raise PretrainedMismatch(
            f"{found.name} has rank {found.rank}, this run {wanted}; set lora_rank and conv_rank to the file's",
            field=_FIELD,
        )
    return found.name


def fetch(files: Files, name: str, base_dir: Path, base_digest: str) -> Adapter:
    """The adapter of an exact version, its bytes verified, read against the base in `base_dir`.

    Raises PretrainedUnusable for a file that is not the registered one or was withdrawn, PretrainedMismatch for one of
    another base, and what the registry raises.
    """
    told = files.adapter_version(name)
    if told.base_digest != base_digest:
        raise PretrainedMismatch(
            f"{name} binds to a base of digest {told.base_digest[:12]}, the one here has {base_digest[:12]}"
        )
    if told.withdrawn:
        raise PretrainedUnusable(f"{name} was withdrawn since the job was made: {told.deprecation}")
    data = files.adapter_file(name)
    digest = hashlib.sha256(data).hexdigest()
    if digest != told.file_digest:
        raise PretrainedUnusable(
            f"the file of {name} arrived with the digest {digest[:12]}, registered is {told.file_digest[:12]}; "
            "have its blob restored, or go on from another version"
        )
    return _read(data, name, base_dir)


def read_local(config: TrainConfig, start: Path, base_dir: Path) -> Adapter | None:
    """The adapter in the file that `pretrained_lora` names, relative to the folder `start`; None for a fresh start.

    Raises ConfigInvalid (PRETRAINED_NAME, PRETRAINED_MISSING) and PretrainedUnusable.
    """
    if not config.pretrained_lora:
        return None
    path = start / Path(config.pretrained_lora).expanduser()
    if path.suffix != ".safetensors":
        raise ConfigInvalid(
            f"pretrained_lora {config.pretrained_lora!r} is no .safetensors file; a run without a server reads a file "
            "(from a registry: terroir adapter download)",
            reason="PRETRAINED_NAME",
            field=_FIELD,
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(
            f"cannot read pretrained_lora {path}: {error.strerror or error}", reason="PRETRAINED_MISSING", field=_FIELD
        ) from error
    return _read(data, str(path), base_dir)


def _reference(text: str) -> str:
    """As the registry names versions; `ink@production` is short for `adapters/ink@production`."""
    name = text if text.startswith("adapters/") else f"adapters/{text}"
    if not _REFERENCE.fullmatch(name):
        raise ConfigInvalid(
            f"pretrained_lora {text[:80]!r} names no version: write ID@ALIAS, adapters/ID/versions/N or adapters/ID; "
            "the service does not see files of your machine",
            reason="PRETRAINED_NAME",
            field=_FIELD,
        )
    return name


def _read(data: bytes, name: str, base_dir: Path) -> Adapter:
    try:
        parsed = parse(data, read_layers(base_dir))
    except LoraError as error:
        raise PretrainedUnusable(f"{name} is no adapter for this base: {error}") from error
    if parsed.unknown:
        first = parsed.unknown[0]
        raise PretrainedUnusable(
            f"{len(parsed.unknown)} keys of {name} name nothing in this base (such as {first.key}: {first.reason}); "
            "they would be lost"
        )
    return parsed.adapter
