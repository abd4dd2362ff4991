"""What becomes of a local run's file on its way to the service: folders turn into frozen datasets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from terroir._proto.dataset.v1.dataset_pb2 import Dataset
from terroir.cli.session import Session, resource
from terroir.client import Client, scan_folder
from terroir.client.datasets import MASK_SUFFIX, FolderPicture
from terroir.common.errors import AlreadyExists, InvalidArgument

_ORDINARY: Final = "-ordinary"
"""Ends the dataset of a run's regularisation pictures."""


@dataclass(frozen=True)
class ServiceConfig:
    """What is sent."""

    text: str
    """YAML."""
    adapter: str
    """Name of the adapter that receives the result."""


def overruled(text: str, given: Mapping[str, Any]) -> str:
    """The YAML with the keys of flags in it; as it is if there are none."""
    return text if not given else _dumped(_keys(text, given))


def service_config(
    this: Session, client: Client, home: Path, text: str, given: Mapping[str, Any], adapter: str, rights: str
) -> ServiceConfig:
    """Turn the folders of a local run into frozen datasets named like the adapter.

    Calls carry resource names only, so this is where a path of this machine ends. Paths of the file are relative to
    `home`, those of flags (`given`) to the working directory. Raises InvalidArgument as reading the file and its
    folders does, ADAPTER_MISSING, and MASKS_OF_FILES for masks that a dataset does not carry.
    """
    from terroir.training.config.flags import absolute_paths  # the model, which not every command needs
    from terroir.training.config.parser import resolve_synonyms

    keys = _keys(text, absolute_paths(resolve_synonyms(given), Path.cwd()))
    target = adapter.removeprefix("adapters/") or str(keys.get("adapter") or "")
    if not target:
        raise InvalidArgument(
            "no adapter to receive the result: --adapter NAME, or the key adapter", reason="ADAPTER_MISSING"
        )
    local = {key: keys.pop(key, None) for key in ("train_data_dir", "metadata_path", "reg_data_dir")}
    if isinstance(local["train_data_dir"], str) and not keys.get("dataset"):
        captions = None if local["metadata_path"] is None else home / Path(str(local["metadata_path"])).expanduser()
        pictures = _scanned(home, local["train_data_dir"], captions, masked=keys.get("masked_loss") is True)
        trigger_word = str(keys.get("trigger_word") or "")
        keys["dataset"] = _frozen(this, client, target, pictures, Dataset(trigger_word=trigger_word), rights)
    elif local["train_data_dir"] is not None:
        keys["train_data_dir"] = local["train_data_dir"]  # the service says what it thinks of it
    if isinstance(local["reg_data_dir"], str) and not keys.get("reg_dataset"):
        ordinary = _scanned(home, local["reg_data_dir"], None, masked=False)
        keys["reg_dataset"] = _frozen(this, client, f"{target}{_ORDINARY}", ordinary, Dataset(), rights)
    keys.pop("output_dir", None)
    return ServiceConfig(_dumped(keys), target)


def _keys(text: str, given: Mapping[str, Any]) -> dict[str, Any]:
    from terroir.training.config.layers import merged
    from terroir.training.config.parser import resolve_synonyms
    from terroir.training.config.yaml_text import load_keys

    return merged([resolve_synonyms(load_keys(text)), resolve_synonyms(given)])


def _dumped(keys: Mapping[str, Any]) -> str:
    from terroir.training.config.yaml_text import dump_keys

    return dump_keys(dict(keys))


def _scanned(home: Path, folder: str, captions: Path | None, *, masked: bool) -> list[FolderPicture]:
    place = home / Path(folder).expanduser()
    pictures = scan_folder(place, captions)
    masks = sorted(path.name for path in place.iterdir() if path.name.endswith(MASK_SUFFIX)) if masked else []
    if masks:
        raise InvalidArgument(
            f"{place} has mask files ({masks[0]}), which a dataset does not carry; put the masks into the pictures' "
            "alpha channels, or train here: terroir train --config",
            reason="MASKS_OF_FILES",
        )
    return pictures


def _frozen(
    this: Session, client: Client, dataset: str, pictures: list[FolderPicture], fields: Dataset, rights: str
) -> str:
    name = resource("datasets", dataset)
    fields.rights_statement = rights
    with suppress(AlreadyExists):  # more pictures for a dataset that is there, or the same again
        client.datasets.create(dataset, fields)
    with this.progress() as bar:
        task = bar.add_task("importing", total=len(pictures))
        for _ in client.datasets.import_pictures(name, pictures):
            bar.advance(task)
    return str(client.datasets.freeze(name).name)
