"""An attempt of the service's worker, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from attempt_kit import AttemptBench
from training_kit import pictures

from terroir.store.blobs import Blobs


def test_regularisation_pictures_of_the_service_are_trained_on(sd_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reg_dataset` was once checked, kept, and then not read by anybody."""

    def file(**keys: object) -> str:
        bench = AttemptBench(sd_dir, monkeypatch)
        bench.sets["datasets/plain"] = pictures(5)[3:]
        trained = bench.run(**keys)
        assert Blobs(bench.store).get(trained.file_digest)
        return trained.file_digest

    assert file() == file()
    assert file(reg_dataset="datasets/plain/versions/1", reg_share=0.5) != file()
