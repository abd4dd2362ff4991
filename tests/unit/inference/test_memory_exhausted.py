"""Memory that runs out while a request joins: that one is refused, the others finish, and there is room again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from terroir.inference.engine.messages import Failed, Finished
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.wearing.stacks import Stacks
from tests.unit.inference.drawing_kit import Studio, make_job, random_adapter


@pytest.fixture(scope="module")
def model(base_dir: Path) -> Model:
    return Model(str(base_dir))


@pytest.mark.parametrize("error", [MemoryError("pretended"), torch.OutOfMemoryError("pretended")])
@pytest.mark.parametrize("where", [(Model, "condition"), (Stacks, "join")])
def test_the_request_that_does_not_fit_is_refused_and_others_finish(
    model: Model, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str], error: Exception
) -> None:
    studio, (owner, method) = Studio(model), where
    adapter = random_adapter(model, 1)
    studio.submit(make_job("running", {"digest": (adapter, 1.0, 1.0)}, steps=5))
    studio.tick()

    def full(*_args: Any, **_named: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, full)
        studio.submit(make_job("refused", {"digest": (adapter, 0.5, 0.5)}, prompt="another text", steps=5))
        studio.tick()
    studio.submit(make_job("later", {"digest": (adapter, 0.5, 0.5)}, prompt="another text", steps=5))
    studio.work_off()
    failed = [event for event in studio.events if isinstance(event, Failed)]
    assert [(event.id, event.code, event.reason) for event in failed] == [
        ("refused", "RESOURCE_EXHAUSTED", "DEVICE_MEMORY_FULL")
    ]
    assert "fewer seeds" in failed[0].message or "smaller" in failed[0].message
    assert {event.id for event in studio.events if isinstance(event, Finished)} == {"running", "later"}
