"""Every key of the configuration changes what it says: an option that does nothing is a lie in the reference."""

from __future__ import annotations

from pathlib import Path

import key_rows_adapter
import key_rows_data
import key_rows_loss
import key_rows_place
import key_rows_service
import key_rows_update
import pytest
from key_table import ROWS, Ground
from training_kit import Bench

from terroir.training.config import TrainConfig

SECTIONS = (
    key_rows_adapter, key_rows_data, key_rows_loss, key_rows_place, key_rows_service, key_rows_update,
)  # fmt: skip
"""Importing a section is what puts its rows into the table."""


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    assert set(ROWS) == set(TrainConfig.model_fields)


@pytest.mark.parametrize("key", [key for key in TrainConfig.model_fields if key in ROWS])
def test_a_key_changes_what_it_says(small: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    ROWS[key](Ground(small, tmp_path, monkeypatch))
