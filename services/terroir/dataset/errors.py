"""Errors that several modules of the dataset service raise, with their reason codes."""

from __future__ import annotations

from terroir.common.errors import FailedPrecondition, NotFound


class DatasetNotFound(NotFound):
    """No dataset of that name."""

    reason = "DATASET_NOT_FOUND"

    def __init__(self, dataset_id: str) -> None:
        super().__init__(
            f"datasets/{dataset_id} does not exist; create it or list the datasets there are",
            metadata={"resource": f"datasets/{dataset_id}"},
        )


class ImageNotFound(NotFound):
    """The dataset holds no picture with that digest."""

    reason = "IMAGE_NOT_FOUND"

    def __init__(self, dataset_id: str, digest: str) -> None:
        super().__init__(
            f"datasets/{dataset_id} holds no picture {digest}; list its images for the digests",
            metadata={"resource": f"datasets/{dataset_id}", "digest": digest},
        )


class VersionNotFound(NotFound):
    """The dataset has no such frozen version."""

    reason = "VERSION_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} does not exist; freeze the dataset or list its versions", metadata={"resource": name})


class DatasetEmpty(FailedPrecondition):
    """Nothing can be frozen."""

    reason = "DATASET_EMPTY"

    def __init__(self, dataset_id: str, imported: int) -> None:
        super().__init__(
            f"datasets/{dataset_id} has no usable picture ({imported} imported); import pictures, and see the findings "
            "of ListImages for those that are kept out",
            metadata={"resource": f"datasets/{dataset_id}", "imported": str(imported)},
        )


class CaptionsMissing(FailedPrecondition):
    """Usable pictures without a caption."""

    reason = "CAPTIONS_MISSING"

    def __init__(self, dataset_id: str, missing: int, usable: int) -> None:
        super().__init__(
            f"{missing} of {usable} usable pictures of datasets/{dataset_id} have no caption; call CaptionImages for "
            "drafts, UpdateCaption for a text of your own, or import them again with sidecar captions",
            metadata={"resource": f"datasets/{dataset_id}", "missing": str(missing), "usable": str(usable)},
        )
