"""The pictures of a run without a server: folders of this machine, captions and masks beside the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from terroir.client.datasets import MASK_SUFFIX, scan_folder
from terroir.common.errors import InvalidArgument
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Picture


@dataclass(frozen=True)
class LocalPictures:
    """What is trained on."""

    data: list[Picture]
    regularisation: list[Picture]
    """Of `reg_data_dir`."""


def read_pictures(config: TrainConfig, start: Path) -> LocalPictures:
    """Read the pictures that the keys name; their paths are relative to `start`.

    Raises InvalidArgument naming the key, with the reasons of `scan_folder`; CAPTIONS_MISSING for a `metadata_path`
    that is no file, PICTURE_UNREADABLE for a file that cannot be read, MASK_OF_NOTHING for a mask without a picture.
    """
    captions = start / Path(config.metadata_path).expanduser() if config.metadata_path else None
    if captions is not None and not captions.is_file():
        raise InvalidArgument(
            f"metadata_path: {captions} is not a file; give a CSV file with columns file_name and text, or unset it",
            reason="CAPTIONS_MISSING",
            field="metadata_path",
        )
    return LocalPictures(
        data=_folder(config, start, "train_data_dir", captions),
        regularisation=_folder(config, start, "reg_data_dir", None) if config.reg_data_dir else [],
    )


def _folder(config: TrainConfig, start: Path, key: str, captions: Path | None) -> list[Picture]:
    folder = start / Path(getattr(config, key)).expanduser()
    try:
        found = scan_folder(folder, captions)
        masks = _masks(folder, [picture.path.stem for picture in found]) if config.masked_loss else {}
        return [
            Picture(
                name=picture.path.name,
                data=picture.path.read_bytes(),
                caption=picture.caption,
                mask=masks.get(picture.path.stem),
            )
            for picture in found
        ]
    except InvalidArgument as error:
        raise InvalidArgument(f"{key}: {error}", reason=error.reason, field=key) from error
    except OSError as error:
        raise InvalidArgument(
            f"{key}: {error.filename} cannot be read ({error.strerror}); allow it or take the file out of the folder",
            reason="PICTURE_UNREADABLE",
            field=key,
        ) from error


def _masks(folder: Path, pictures: list[str]) -> dict[str, bytes]:
    """Mask files by the name of their picture without its ending."""
    masks = {path.name[: -len(MASK_SUFFIX)]: path for path in folder.iterdir() if path.name.endswith(MASK_SUFFIX)}
    if strays := sorted(masks.keys() - set(pictures)):
        raise InvalidArgument(
            f"{masks[strays[0]]} is the mask of no picture; name it after one, such as {pictures[0]}{MASK_SUFFIX}",
            reason="MASK_OF_NOTHING",
        )
    return {name: path.read_bytes() for name, path in masks.items()}
