from __future__ import annotations

import pytest
from training_kit import Bench, Killed, MemorySinks, flat, pictures

from terroir.training.engine import train as engine
from terroir.training.engine.data.batches import Batches
from terroir.training.engine.ports import Stopped
from terroir.training.errors import CheckpointMismatch

LONG = {
    "max_train_steps": 5,
    "save_steps": 2,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0.1,
    "horizontal_flip": True,
}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("passes", [1, 5, 7])
def test_a_run_killed_at_any_forward_pass_and_resumed_equals_one_never_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, optimizer: str, passes: int
) -> None:
    """Two passes make a step: an odd count dies between a step's passes, 5 and 7 after a checkpoint."""
    whole = bench.run(optimizer=optimizer, **LONG)
    sinks = MemorySinks()
    left = passes
    make = Batches.make

    def dying(self: Batches, step: int, part: int, *workers: int) -> object:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return make(self, step, part, *workers)

    monkeypatch.setattr(Batches, "make", dying)
    with pytest.raises(Killed):
        bench.run(sinks, optimizer=optimizer, **LONG)
    monkeypatch.undo()
    resumed = bench.run(sinks, optimizer=optimizer, **LONG)
    assert (flat(whole.adapter) == flat(resumed.adapter)).all()
    assert resumed.loss == whole.loss
    assert (passes < 4) == all("resumed" not in line for line in sinks.lines)


def test_a_stopped_run_saves_the_step_it_stopped_at_and_goes_on_from_there(bench: Bench) -> None:
    whole = bench.run()
    sinks = MemorySinks(stop_at=3)
    with pytest.raises(Stopped) as stopped:
        bench.run(sinks)
    assert stopped.value.step == 3 == sinks.checkpoints[-1].step
    sinks.stop_at = None
    assert (flat(whole.adapter) == flat(bench.run(sinks).adapter)).all()


def test_a_resumed_run_that_was_complete_gives_the_same_adapter_without_a_step(bench: Bench) -> None:
    sinks = MemorySinks()
    whole = bench.run(sinks)
    steps = len(sinks.curves)
    assert (flat(whole.adapter) == flat(bench.run(sinks).adapter)).all()
    assert len(sinks.curves) == steps


def test_a_checkpoint_of_another_configuration_is_refused(bench: Bench) -> None:
    sinks = MemorySinks()
    bench.run(sinks)
    with pytest.raises(CheckpointMismatch, match=r"step 4 .*learning_rate 0\.01 -> 0\.02"):
        bench.run(sinks, learning_rate=2e-2)


def test_a_checkpoint_of_other_pictures_is_refused(bench: Bench) -> None:
    sinks = MemorySinks()
    bench.run(sinks)
    with pytest.raises(CheckpointMismatch):
        bench.run(sinks, data=pictures(4))


def test_another_thread_count_resumes_and_says_that_it_is_not_bit_exact(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks = MemorySinks(stop_at=2)
    with pytest.raises(Stopped):
        bench.run(sinks)
    sinks.stop_at = None
    monkeypatch.setattr(engine, "environment", lambda run: {"threads": "7"})
    bench.run(sinks)
    assert "equivalent, not bit-exact: threads 1 -> 7" in sinks.lines[-1]
