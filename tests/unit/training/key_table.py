"""The table of the configuration's keys: one row each, which shows that the key changes what it says."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from training_kit import Bench, MemorySinks, flat

from terroir.lora.adapter import Adapter
from terroir.training.engine.data.batches import Batches

TESTS: Final = Path(__file__).resolve().parents[2]


@dataclass
class Ground:
    """What the rows stand on."""

    small: Bench
    """Runs on the smallest base."""
    folder: Path
    """An empty one."""
    patch: pytest.MonkeyPatch
    sinks: MemorySinks = field(default_factory=MemorySinks)
    """Of the last run."""

    @property
    def base(self) -> Path:
        return self.small.base

    def adapter(self, **keys: Any) -> Adapter:
        """That of two steps."""
        self.sinks = MemorySinks()
        return self.small.run(self.sinks, **{"max_train_steps": 2, **keys}).adapter

    def weights(self, **keys: Any) -> npt.NDArray[np.float32]:
        """Those of two steps, one after the other."""
        return flat(self.adapter(**keys))

    @contextmanager
    def batches_as(self, change: Callable[[Any, int], Any]) -> Iterator[list[tuple[int, int]]]:
        """Changes every batch of a run; gives the (step, part) of those that were made."""
        made: list[tuple[int, int]] = []
        make = Batches.make

        def changed(these: Batches, step: int, part: int, *workers: int) -> Any:
            made.append((step, part))
            return change(make(these, step, part, *workers), step)

        with self.patch.context() as patch:
            patch.setattr(Batches, "make", changed)
            yield made


Row = Callable[[Ground], None]
ROWS: dict[str, Row] = {}


def shows(key: str) -> Callable[[Row], Row]:
    """Names the key that a check is the row of."""

    def keep(row: Row) -> Row:
        assert key not in ROWS, f"{key} has two rows"
        ROWS[key] = row
        return row

    return keep


def shown_by(key: str, test: str) -> None:
    """A row for what one process alone cannot show: it points to `FILE::TEST`, below tests/, and checks that it is
    there and speaks of the key."""
    file, _, name = test.partition("::")

    @shows(key)
    def row(_: Ground) -> None:
        source = (TESTS / file).read_text(encoding="utf-8")
        functions = {
            node.name: ast.get_source_segment(source, node) or ""
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{file} has no test {name}"
        assert key in source, f"{file} does not speak of {key}"


def part(adapter: Adapter, role: str) -> npt.NDArray[np.float32]:
    """All `down` or `up` factors of an adapter, one after the other."""
    return np.concatenate([getattr(module, role).ravel() for module in adapter.modules.values()])
