"""What a registration asks of the other services, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Progress = Callable[[int, int], None]
"""Hears of pictures done, and of how many; what it raises ends the step."""


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset as it is."""

    id: str
    region: str
    """Code; empty if it lies in none."""
    rights_statement: str
    pictures: int
    """Imported ones, those that are kept out included."""


@dataclass(frozen=True)
class Usable:
    """How many pictures of a dataset can be trained on."""

    count: int
    of: int
    kept_out_by: Mapping[str, int]
    """How many each gate keeps out: `BLUR` → 3."""


@dataclass(frozen=True)
class NewDataset:
    """A dataset to be made for pictures of an import source."""

    id: str
    region: str
    rights_statement: str
    trigger_word: str
    license: str


class DatasetHouse(Protocol):
    """The dataset service. Everything may be repeated without harm; raises what the service raises."""

    def find(self, dataset_id: str) -> DatasetFacts | None:
        """A dataset, if there is one of that name."""
        ...

    def create(self, dataset: NewDataset, request_id: str) -> None:
        """Make a dataset; raises AlreadyExists if another request made it."""
        ...

    def import_folder(self, dataset_id: str, folder: Path, progress: Progress) -> None:
        """Import the pictures that lie directly in a folder, with their captions; what is there is not sent again."""
        ...

    def usable(self, dataset_id: str) -> Usable:
        """How many pictures the gates leave."""
        ...

    def caption(self, dataset_id: str, progress: Progress) -> None:
        """Draft the captions that are missing."""
        ...

    def freeze(self, dataset_id: str, request_id: str) -> str:
        """Freeze what is usable; `datasets/{id}/versions/{number}`, the same one for the same request."""
        ...


class StyleShelf(Protocol):
    """The registry. Everything may be repeated without harm; raises what the service raises."""

    def region(self, code: str) -> str | None:
        """The code of a region as the region tree spells it; None if it is not there."""
        ...

    def regions(self) -> Sequence[str]:
        """Codes of all regions."""
        ...

    def region_of_adapter(self, adapter: str) -> str | None:
        """Code of the region of an adapter's newest version, empty if it has none; None if there is no such adapter."""
        ...

    def metrics(self, version: str) -> Mapping[str, float]:
        """Figures that a version carries."""
        ...

    def set_alias(self, adapter: str, alias: str, version: str, *, reason: str, request_id: str) -> None:
        """Point an alias at a version, once for one request."""
        ...

    def assign(self, region: str, adapter: str, request_id: str) -> None:
        """Make an adapter (`{id}@{alias}`) and its trigger word the region's own recipe; its seasons stay."""
        ...


class ImportSources(Protocol):
    """Places with pictures that an operator configured."""

    def ensure(self, source: str) -> None:
        """Raise ImportSourceUnknown unless there is one of that name."""
        ...

    def opened(self, source: str) -> AbstractContextManager[Path]:
        """Its files, directly in a folder of this machine while the context lasts; raises ImportSourceUnreadable."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Names of all."""
        ...
