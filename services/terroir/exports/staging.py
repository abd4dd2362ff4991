"""Folders that appear whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terroir.exports.errors import ExportFailed


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to fill, beside `target`, that becomes `target` at the end and vanishes if anything is raised.

    Raises ExportFailed if `target` exists and holds something, or the place cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportFailed(
            f"{target} is there already; name another folder or remove it", reason="EXPORT_TARGET_EXISTS"
        )
    target = target.resolve()
    if target == Path.cwd():  # replacing it would leave the caller in a folder that is gone
        raise ExportFailed(f"{target} is the working folder; name a new one in it", reason="EXPORT_TARGET_EXISTS")
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.replace(target)  # an empty folder gives way, in one step
    except OSError as error:
        raise ExportFailed(
            f"{target} cannot be written: {error.strerror or error}; free space, or choose another folder",
            reason="EXPORT_TARGET_UNUSABLE",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
