"""Train an adapter: the one loop, with its guarded update, its checkpoints and its exact resume."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from terroir.common.clock import Clock, SystemClock
from terroir.training.config import MixedPrecision
from terroir.training.engine.base_model import BaseModel
from terroir.training.engine.batches import Batch, Batches
from terroir.training.engine.encoding import CaptionEncoder, Encoded, PictureEncoder
from terroir.training.engine.lora_layers import extract, inject
from terroir.training.engine.meter import Meter
from terroir.training.engine.optimizers import build_optimizer
from terroir.training.engine.ports import ArrayCache, Pictures, Sinks, Stopped, TrainResult, TrainRun
from terroir.training.engine.randomness import derive
from terroir.training.engine.schedule import learning_rate
from terroir.training.engine.state import Counters, environment, fingerprint, pack, unpack
from terroir.training.errors import NonFiniteLoss, NothingToTrain, OutOfMemory

_LOSS_WINDOW: Final = 20


def train(run: TrainRun, data: Pictures, sinks: Sinks, cache: ArrayCache, clock: Clock | None = None) -> TrainResult:
    """Train to the end, going on from `sinks.newest()` if there is one.

    Equal runs give equal weights, also when they were killed and resumed in between: bit for bit with the same torch,
    processor and thread count. Raises Stopped on request, NonFiniteLoss, NothingToTrain, PictureUnreadable,
    BaseUnreadable, CheckpointMismatch and OutOfMemory.
    """
    if not data:
        raise NothingToTrain("the data set has no pictures; import some and freeze a new version")
    with _own_torch(run.threads), _memory_advice():
        return _Training(run, data, sinks, cache, clock or SystemClock()).finish()


class _Training:
    def __init__(self, run: TrainRun, data: Pictures, sinks: Sinks, cache: ArrayCache, clock: Clock) -> None:
        self._run = run
        self._sinks = sinks
        self._total = run.config.total_steps(len(data))
        self._meter = Meter(sinks, clock, self._total)
        self._pictures = len(data)
        self._meter.phase("preparing")
        base = BaseModel.load(run.base_dir, run.device)
        self._unet = base.unet
        self._weights = inject(self._unet, run.config)
        self._unet.train()
        self._optimizer = build_optimizer(run.config, [weight for _, weight in self._weights])
        self._batches = Batches(self._encode(base, data, cache), base.schedule, run.config)
        self._fingerprint = fingerprint(run, _data_digest(data, run), self._total)
        self._counters = Counters()

    def finish(self) -> TrainResult:
        """Run every step that is left."""
        saved = self._resume()
        self._meter.phase("training", self._counters)
        while self._counters.step < self._total:
            if self._sinks.stop_requested():
                self._save()
                raise Stopped(self._counters.step)
            self._step()
            if (step := self._counters.step) % self._run.config.save_steps == 0 or step == self._total:
                self._save()
                saved = step
        if saved != self._total:
            self._save()
        return TrainResult(
            adapter=extract(self._unet, self._run.config.alpha),
            steps=self._total,
            loss=self._counters.mean_loss,
            skipped_batches=self._counters.skipped,
            pictures=self._pictures,
        )

    def _encode(self, base: BaseModel, data: Pictures, cache: ArrayCache) -> Encoded:
        self._meter.phase("caching")
        texts, captions = CaptionEncoder(base.tokenizer, base.text_encoder, self._run, cache).encode(data)
        encoder = PictureEncoder(base.vae, self._run, cache)
        means, deviations = encoder.encode(data, lambda _: None)
        return Encoded(means, deviations, texts, captions)

    def _resume(self) -> int:
        newest = self._sinks.newest()
        if newest is None:
            self._sinks.log(
                f"training {sum(weight.numel() for _, weight in self._weights)} weights on {self._pictures} pictures "
                f"for {self._total} steps"
            )
            return 0
        self._counters, before = unpack(newest, self._weights, self._optimizer, run_fingerprint=self._fingerprint)
        now = environment(self._run)
        changed = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
        exact = f"equivalent, not bit-exact: {', '.join(changed)}" if changed else "bit-exact"
        self._sinks.log(f"resumed at step {newest.step} of {self._total} ({exact})")
        return newest.step

    def _step(self) -> None:
        counters, config = self._counters, self._run.config
        rate = learning_rate(config, counters.step, self._total)
        loss, norm = self._gradients(counters.step)
        if math.isfinite(loss) and math.isfinite(norm):
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
            counters.skipped_in_a_row = 0
            counters.losses = [*counters.losses[1 - _LOSS_WINDOW :], loss]
            self._sinks.scalars(counters.step + 1, {"loss": loss, "learning_rate": rate, "gradient_norm": norm})
        else:
            self._skip(loss, norm)
        self._optimizer.zero_grad(set_to_none=True)
        counters.step += 1
        self._meter.stepped(counters, rate)

    def _skip(self, loss: float, norm: float) -> None:
        counters, limit = self._counters, self._run.config.max_bad_batches
        counters.skipped += 1
        counters.skipped_in_a_row += 1
        self._sinks.log(f"skipped step {counters.step + 1}: loss {loss}, gradient norm {norm}")
        self._sinks.scalars(counters.step + 1, {"skipped_batches": float(counters.skipped)})
        if counters.skipped_in_a_row >= limit:
            raise NonFiniteLoss(
                f"loss or gradients were not finite in {limit} steps in a row, up to step {counters.step + 1} "
                f"(loss {loss}, gradient norm {norm}); the weights stay those of the last good step: "
                "lower learning_rate, set mixed_precision to no, or look at the pictures",
                metadata={"step": str(counters.step + 1)},
            )

    def _gradients(self, step: int) -> tuple[float, float]:
        """Accumulate the gradients of one step, clipped; returns mean loss and gradient norm, finite or not."""
        parts = self._run.config.gradient_accumulation_steps
        total = 0.0
        for part in range(parts):
            # Only an adapter's dropout draws from the global generator.
            torch.manual_seed(derive(self._run.config.seed, "dropout", step, part))
            loss = self._loss(self._batches.make(step, part))
            total += float(loss.detach()) / parts
            if not math.isfinite(total):
                return total, math.nan
            (loss / parts).backward()
        limit = self._run.config.max_grad_norm or math.inf
        return total, float(nn.utils.clip_grad_norm_([weight for _, weight in self._weights], limit))

    def _loss(self, batch: Batch) -> Tensor:
        bf16 = self._run.config.mixed_precision is MixedPrecision.BF16
        with torch.autocast(self._run.device.split(":")[0], dtype=torch.bfloat16, enabled=bf16):
            predicted = self._unet(batch.noisy, batch.timesteps, batch.texts, return_dict=False)[0]
        errors = nn.functional.mse_loss(predicted.float(), batch.target, reduction="none").mean(dim=(1, 2, 3))
        return (errors if batch.weights is None else errors * batch.weights).mean()

    def _save(self) -> None:
        checkpoint = pack(
            self._weights,
            self._optimizer,
            self._counters,
            run_fingerprint=self._fingerprint,
            environment=environment(self._run),
        )
        self._sinks.save(checkpoint)


def _data_digest(data: Pictures, run: TrainRun) -> str:
    digest = hashlib.sha256(run.trigger_word.encode())
    for picture in data:
        digest.update(hashlib.sha256(picture.data).digest() + hashlib.sha256(picture.caption.encode()).digest())
    return digest.hexdigest()


@contextlib.contextmanager
def _own_torch(threads: int) -> Iterator[None]:
    """Fix threads and kernels for the run, and leave torch as it was."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(before)


@contextlib.contextmanager
def _memory_advice() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(error) from error
    except RuntimeError as error:
        if "not enough memory" not in str(error):
            raise
        raise _out_of_memory(error) from error


def _out_of_memory(error: Exception) -> OutOfMemory:
    return OutOfMemory(
        f"memory ran out ({str(error).splitlines()[0][:200] if str(error) else 'no details'}); "
        "lower batch_size first (and raise gradient_accumulation_steps), then resolution, then lora_rank"
    )
