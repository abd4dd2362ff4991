"""The loop with a compiled denoiser: few row counts, and nothing is compiled anew when adapters change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terroir.inference.engine.messages import Failed, Stepped
from terroir.inference.engine.pipeline.model import Model
from tests.unit.inference.drawing_kit import DressedJob, Studio, make_job, random_adapter


@pytest.fixture
def model(base_dir: Path) -> Iterator[Model]:
    yield Model(str(base_dir), device="cpu")
    torch.compiler.reset()


def mixed_jobs(model: Model, weight: float) -> list[DressedJob]:
    """Three guided pictures of three stacks, and one without guidance."""
    worn = [{f"style-{seed}": (random_adapter(model, seed), weight, 0.0)} for seed in (1, 2)]
    return [
        make_job("one", worn[0]), make_job("two", worn[1], sampler="euler"), make_job("bare"),
        make_job("free", worn[0], guidance_scale=1.0),
    ]  # fmt: skip


def test_rows_are_padded_to_powers_of_two_and_pictures_are_the_same(model: Model) -> None:
    plain = Studio(model)
    plain.run(*mixed_jobs(model, 0.7))
    seen: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    padded = Studio(model, static_rows=8)
    padded.run(*mixed_jobs(model, 0.7))
    hook.remove()
    assert set(seen) == {8, 1}, "six rows of three guided pictures, one of the other"
    assert {event.tick.rows for event in padded.events if isinstance(event, Stepped)} == {6, 1}, "only real rows count"
    for job_id in ("one", "two", "bare", "free"):
        assert np.abs(plain.pictures(job_id)[0] - padded.pictures(job_id)[0]).max() <= 1
    assert padded.stacks.pinned == 1, "padding rows wear the bare base, always"


@pytest.mark.slow
def test_nothing_is_compiled_anew_when_adapters_and_weights_change(model: Model) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    studio = Studio(model, static_rows=8)
    model.compile(backend=count)
    studio.run(*mixed_jobs(model, 0.7))
    warm = len(graphs)
    assert warm >= 2, "one for each row count at least"
    studio.run(*mixed_jobs(model, -0.3))
    other = {"other": (random_adapter(model, 8, rank=5), 0.4, 0.5)}
    studio.run(make_job("a", other), make_job("b"), make_job("c", other, sampler="unipc", guidance_scale=9.0))
    studio.run(make_job("d", seeds=(1, 2, 3)))
    assert not [event for event in studio.events if isinstance(event, Failed)]
    assert len(graphs) == warm
