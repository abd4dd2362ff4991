"""Train an adapter: the one loop, with its guarded update, its checkpoints and its exact resume."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from terroir.common.clock import Clock, SystemClock
from terroir.training import advice
from terroir.training.engine.data.batches import Batch
from terroir.training.engine.identity import environment
from terroir.training.engine.loss import loss_of
from terroir.training.engine.meter import Meter
from terroir.training.engine.parallel import Silent, Solo
from terroir.training.engine.ports import ArrayCache, Collective, Pictures, Sinks, Stopped, TrainResult, TrainRun
from terroir.training.engine.preparation import Prepared, prepare
from terroir.training.engine.randomness import derive
from terroir.training.engine.schedule import Rates, rates_of
from terroir.training.engine.state import Counters
from terroir.training.engine.surroundings import memory_advice, own_torch
from terroir.training.engine.update import GuardedUpdate, Outcome, Step
from terroir.training.errors import NonFiniteLoss, NothingToTrain

_LOSS_WINDOW: Final = 20


def train(
    run: TrainRun,
    data: Pictures,
    sinks: Sinks,
    cache: ArrayCache,
    clock: Clock | None = None,
    regularisation: Pictures = (),
    collective: Collective | None = None,
) -> TrainResult:
    """Train to the end, going on from `sinks.newest()` if there is one.

    `regularisation` are pictures of what must not change (prior preservation, Ruiz et al., arXiv 2208.12242). All
    workers of a `collective` call this with the same run and data; the sinks of worker 0 alone are used, and all return
    the same.

    Equal runs give equal weights, also when they were killed and resumed in between: bit for bit with the same torch,
    processor and thread count. Raises Stopped on request, NonFiniteLoss, NothingToTrain, CaptionMissing,
    PictureUnreadable, LatentsNotFinite, BaseUnreadable, BaseQuantizationUnavailable, PretrainedMismatch, ConfigInvalid,
    CheckpointMismatch and OutOfMemory.
    """
    if not data:
        raise NothingToTrain("the data set has no pictures; import some and freeze a new version")
    workers = collective or Solo()
    heard = sinks if workers.rank == 0 else Silent()
    meter = Meter(heard, clock or SystemClock())
    with own_torch(run), memory_advice(run.config):
        prepared = prepare(run, data, regularisation, cache, workers, heard, meter)
        return _Training(run, prepared, heard, meter, workers).finish(len(data))


class _Training:
    def __init__(self, run: TrainRun, prepared: Prepared, sinks: Sinks, meter: Meter, collective: Collective) -> None:
        self._run = run
        self._prepared = prepared
        self._state = prepared.state
        self._sinks = sinks
        self._meter = meter
        self._collective = collective
        self._total = meter.total_steps = prepared.total_steps
        self._counters = Counters()
        self._losses: list[float] = []
        self._update = GuardedUpdate(
            self._state.layers.trained,
            self._state.optimizer,
            self._state.precision,
            collective,
            run.config.max_grad_norm,
        )
        self._text_trains = run.config.text_encoder_lr is not None

    def finish(self, pictures: int) -> TrainResult:
        """Run every step that is left."""
        self._sinks.log(f"encoded {self._prepared.description}")
        saved = self._resume(pictures)
        self._meter.phase("training", self._counters)
        while self._counters.step < self._total:
            if self._collective.any(self._sinks.stop_requested()):
                self._save()
                raise Stopped(self._counters.step)
            self._step()
            if (step := self._counters.step) % self._run.config.save_steps == 0 or step == self._total:
                self._save()
                saved = step
            if self._samples_are_due(step):
                self._sinks.sample(step, self._state.adapter())
        if saved != self._total:
            self._save()
        family = self._prepared.family
        if hint := advice.hint(self._losses, self._run.config):
            self._sinks.log(f"hint: {hint}")
        return TrainResult(
            adapter=self._state.adapter(),
            steps=self._total,
            loss=self._counters.mean_loss,
            skipped_batches=self._counters.skipped,
            pictures=pictures,
            family=family.name,
            prediction_type=family.schedule.prediction_type,
            hint=hint,
        )

    def _resume(self, pictures: int) -> int:
        newest = self._sinks.newest()
        state = self._collective.broadcast(newest.state if newest else None)
        if state is None:
            size = sum(weight.parameter.numel() for weight in self._state.layers.trained)
            self._sinks.log(f"training {size} weights on {pictures} pictures for {self._total} steps")
            return 0
        self._counters, before = self._state.unpack(state, self._prepared.facts)
        now = environment(self._run)
        changed = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
        exact = f"equivalent, not bit-exact: {', '.join(changed)}" if changed else "bit-exact"
        self._sinks.log(f"resumed at step {self._counters.step} of {self._total} ({exact})")
        return self._counters.step

    def _step(self) -> None:
        config, counters = self._run.config, self._counters
        rates = rates_of(config, counters.step, self._total)
        if self._text_trains and rates.text_encoder == 0:
            self._stop_text_encoders()
        passes = config.gradient_accumulation_steps
        for part in range(passes):
            self._update.add(self._loss(counters.step, part), passes)
        step = self._update.finish(rates)
        self._count(step, rates)
        self._meter.stepped(counters, rates.denoiser)

    def _loss(self, step: int, part: int) -> Tensor:
        rank, world = self._collective.rank, self._collective.world
        # Only an adapter's dropout draws from the global generator.
        torch.manual_seed(derive(self._run.config.seed, "dropout", step, part, *((rank,) if rank else ())))
        batch = self._prepared.batches.make(step, part, rank, world)
        with self._state.precision.passes():
            predicted = self._predicted(batch)
        return loss_of(predicted, batch)

    def _predicted(self, batch: Batch) -> Tensor:
        family = self._prepared.family
        texts = batch.texts
        if texts is None:
            assert batch.tokens is not None
            texts = family.encode_texts(batch.tokens)
        return family.denoise(batch.noisy, batch.timesteps, texts, batch.geometry)

    def _stop_text_encoders(self) -> None:
        self._text_trains = False
        self._state.layers.freeze_text_encoders()
        for encoder in self._prepared.family.text_encoders.values():
            encoder.eval()

    def _count(self, step: Step, rates: Rates) -> None:
        counters, state = self._counters, self._state
        number = counters.step = counters.step + 1
        if step.outcome is Outcome.BAD:
            self._skip(step)
            return
        if step.outcome is Outcome.OVERFLOWED:
            counters.overflows += 1
            self._sinks.log(f"step {number} overflowed fp16: the loss scale is {state.precision.loss_scale:g} now")
            return
        if state.average is not None:
            state.average.update(counters.updates)
        counters.skipped_in_a_row = 0
        self._losses.append(step.loss)
        counters.losses = [*counters.losses[1 - _LOSS_WINDOW :], step.loss]
        curves = {"loss": step.loss, "learning_rate": rates.denoiser, "gradient_norm": step.norm}
        if self._run.config.text_encoder_lr is not None:
            curves["text_encoder_learning_rate"] = rates.text_encoder
        if state.precision.scales:
            curves["loss_scale"] = state.precision.loss_scale
        self._sinks.scalars(number, curves)

    def _skip(self, step: Step) -> None:
        counters, limit = self._counters, self._run.config.max_bad_batches
        counters.skipped += 1
        counters.skipped_in_a_row += 1
        self._sinks.log(f"skipped step {counters.step}: loss {step.loss}, gradient norm {step.norm}")
        self._sinks.scalars(counters.step, {"skipped_batches": float(counters.skipped)})
        if counters.skipped_in_a_row >= limit:
            told = advice.for_symptom(advice.Symptom.NON_FINITE, self._run.config)
            raise NonFiniteLoss(
                f"loss or gradients were not finite in {limit} steps in a row, up to step {counters.step} "
                f"(loss {step.loss}, gradient norm {step.norm}); the last checkpoint is good: {told.sentence()}",
                metadata={"step": str(counters.step)},
            )

    def _samples_are_due(self, step: int) -> bool:
        config = self._run.config
        every = config.sample_steps or config.save_steps
        return bool(config.sample_prompts) and self._collective.rank == 0 and (step % every == 0 or step == self._total)

    def _save(self) -> None:
        if self._collective.rank == 0:
            facts, now = self._prepared.facts, environment(self._run)
            self._sinks.save(self._state.pack(self._counters, facts=facts, environment=now))
