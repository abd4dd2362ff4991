"""Import sources: bucket prefixes and folders of pictures that an operator configured by name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from terroir.common.validation import did_you_mean
from terroir.store.errors import StoreError
from terroir.training.styles.errors import ImportSourceUnknown, ImportSourceUnreadable


class ForeignFiles(Protocol):
    """Files that others put somewhere, directly in one folder."""

    def names(self) -> list[str]:
        """Their names, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """One file."""
        ...


class ConfiguredSources:
    """`ImportSources` of the settings."""

    def __init__(
        self, places: Mapping[str, str], opened: Callable[[str], ForeignFiles], scratch: Callable[[], Path]
    ) -> None:
        """`places` are `s3://bucket/prefix` or folders, by name; `scratch` is where copies of a bucket's files go."""
        self._places = places
        self._open = opened
        self._scratch = scratch

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def ensure(self, source: str) -> None:
        """See ImportSources."""
        if source not in self._places:
            raise ImportSourceUnknown(
                f"importSources/{source} is not configured{did_you_mean(source, self._places)}; there are "
                f"{', '.join(sorted(self._places)) or 'none'} (an operator sets TERROIR_TRAINING_IMPORT_SOURCES)",
                field="import_source",
            )

    @contextmanager
    def opened(self, source: str) -> Iterator[Path]:
        """See ImportSources."""
        self.ensure(source)
        place = self._places[source]
        if not place.startswith("s3://"):
            folder = Path(place).expanduser()
            if not folder.is_dir():
                raise ImportSourceUnreadable(
                    f"importSources/{source} is {place}, which is no folder here; an operator mounts it, or corrects "
                    "TERROIR_TRAINING_IMPORT_SOURCES"
                )
            yield folder
            return
        with tempfile.TemporaryDirectory(dir=self._scratch(), prefix="import-") as copies:
            self._copy(source, Path(copies))
            yield Path(copies)

    def _copy(self, source: str, folder: Path) -> None:
        try:
            files = self._open(self._places[source])
            for name in files.names():
                (folder / name).write_bytes(files.read(name))
        except StoreError as error:
            if getattr(error, "passes", False):
                raise
            raise ImportSourceUnreadable(f"importSources/{source} cannot be read: {error}") from error
