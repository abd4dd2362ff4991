"""New values for a run's keys; each function gives only keys that it really changes, to values that are allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from terroir.training.config import DEFAULT_EPOCHS, MAX_RANK, MAX_STEPS, MixedPrecision, TargetPreset, TrainConfig

Changed = Mapping[str, Any]

_MOST_ACCUMULATED: Final = 1024
_MOST_EPOCHS: Final = 100_000.0
_SMALLEST_SIDE: Final = 64
_TINY: Final = "terroir-tiny"
_USUAL_RATE: Final = {"sd": 1e-4, _TINY: 3e-3}
_WIDER: Final = {
    TargetPreset.ATTENTION: TargetPreset.ATTENTION_FF,
    TargetPreset.ATTENTION_FF: TargetPreset.ALL_LINEAR_CONV,
}


def split_batch(config: TrainConfig) -> Changed:
    """Half the pictures a pass, twice the passes: the same step in about half the memory."""
    half = config.batch_size // 2
    passes = math.ceil(config.batch_size * config.gradient_accumulation_steps / half) if half else 0
    if not half or passes > _MOST_ACCUMULATED:
        return {}
    return {"batch_size": half, "gradient_accumulation_steps": passes}


def join_batch(config: TrainConfig) -> Changed:
    """Twice the pictures a pass, half the passes."""
    if config.gradient_accumulation_steps % 2 or config.batch_size > 128:
        return {}
    return {
        "batch_size": 2 * config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps // 2,
    }


def more_pictures_a_step(config: TrainConfig, times: int = 4) -> Changed:
    """More passes a step, so that a gradient is the mean of more pictures."""
    passes = min(_MOST_ACCUMULATED, times * config.gradient_accumulation_steps)
    return {"gradient_accumulation_steps": passes} if passes > config.gradient_accumulation_steps else {}


def lower_precision(config: TrainConfig) -> Changed:
    """bf16 for the passes."""
    return {"mixed_precision": "bf16"} if config.mixed_precision is MixedPrecision.NO else {}


def safer_precision(config: TrainConfig) -> Changed:
    """fp16 overflows at 65504, bf16 does not, fp32 is exact as well."""
    safer = {MixedPrecision.FP16: "bf16", MixedPrecision.BF16: "no"}.get(config.mixed_precision)
    return {"mixed_precision": safer} if safer else {}


def recompute(config: TrainConfig) -> Changed:
    """Activations twice instead of kept."""
    return {} if config.gradient_checkpointing else {"gradient_checkpointing": True}


def keep_activations(config: TrainConfig) -> Changed:
    """Activations kept instead of twice."""
    return {"gradient_checkpointing": False} if config.gradient_checkpointing else {}


def smaller_pictures(config: TrainConfig) -> Changed:
    """Three quarters of the side, 9/16 of the pixels."""
    side = max(_SMALLEST_SIDE, config.resolution * 3 // 4 // 64 * 64)
    if side >= config.resolution:
        return {}
    bounds = ("min_bucket_reso", "bucket_reso_steps") if config.enable_bucket else ()
    return {"resolution": side, **{key: side for key in bounds if getattr(config, key) > side}}


def smaller_rank(config: TrainConfig) -> Changed:
    """Half the rank; alpha stays in proportion."""
    if config.pretrained_lora:
        return {}  # the form of an adapter that a run goes on from is given
    return _rank(config, config.lora_rank // 2) if config.lora_rank > 1 else {}


def larger_rank(config: TrainConfig) -> Changed:
    """Twice the rank; alpha stays in proportion."""
    if config.pretrained_lora:
        return {}  # the form of an adapter that a run goes on from is given
    return _rank(config, 2 * config.lora_rank) if 2 * config.lora_rank <= MAX_RANK else {}


def _rank(config: TrainConfig, rank: int) -> Changed:
    if config.lora_alpha is None:
        return {"lora_rank": rank}
    alpha = min(4096.0, config.lora_alpha * rank / config.lora_rank)
    return {"lora_rank": rank, "lora_alpha": alpha} if alpha else {"lora_rank": rank}


def quantised_base(config: TrainConfig) -> Changed:
    """The frozen base in a quarter of its memory."""
    return {"base_quantization": "nf4"} if config.base_quantization == "none" else {}


def without_text_encoder(config: TrainConfig) -> Changed:
    """Text encoders stay as they are."""
    if config.text_encoder_lr is None:
        return {}
    followers = ("text_encoder_lr_scheduler", "text_encoder_stop_step")
    return {"text_encoder_lr": None, **{key: None for key in followers if getattr(config, key) is not None}}


def gentler_text_encoder(config: TrainConfig) -> Changed:
    """A tenth of the denoiser's rate, for the first third of the run."""
    if config.text_encoder_lr is None:
        return {}
    rate = min(config.text_encoder_lr / 2, config.learning_rate / 10)
    if config.max_train_steps is None or not rate:
        return {"text_encoder_lr": rate} if rate else {}
    stop = max(1, config.max_train_steps // 3)
    earlier = config.text_encoder_stop_step is None or stop < config.text_encoder_stop_step
    return {"text_encoder_lr": rate, **({"text_encoder_stop_step": stop} if earlier else {})}


def fewer_steps(config: TrainConfig) -> Changed:
    """Half the run."""
    return _length(config, 0.5)


def more_steps(config: TrainConfig) -> Changed:
    """Twice the run."""
    return _length(config, 2.0)


def _length(config: TrainConfig, times: float) -> Changed:
    if config.max_train_steps is not None:
        steps = min(MAX_STEPS, max(1, int(config.max_train_steps * times)))
        return {"max_train_steps": steps} if steps != config.max_train_steps else {}
    before = DEFAULT_EPOCHS if config.epochs is None else config.epochs
    epochs = min(_MOST_EPOCHS, before * times)
    return {"epochs": epochs} if epochs not in (0, before) else {}


def lower_rate(config: TrainConfig, times: float = 2.0) -> Changed:
    """A half or a third of the rate, rounded to two digits."""
    rate = _two_digits(config.learning_rate / times)
    return {"learning_rate": rate} if 0 < rate < config.learning_rate else {}


def third_of_rate(config: TrainConfig) -> Changed:
    """As `lower_rate`."""
    return lower_rate(config, 3.0)


def higher_rate(config: TrainConfig) -> Changed:
    """What is usual for the base, or twice what is more than that."""
    usual = _USUAL_RATE.get(config.base_model, _USUAL_RATE["sd"])
    rate = usual if config.learning_rate < usual else min(1.0, _two_digits(2 * config.learning_rate))
    return {"learning_rate": rate} if rate > config.learning_rate else {}


def _two_digits(rate: float) -> float:
    return float(f"{rate:.1e}")


def warm_up(config: TrainConfig) -> Changed:
    """A twentieth of the steps, a hundred where their number is not known."""
    steps = 100 if config.max_train_steps is None else config.max_train_steps // 20
    return {"lr_warmup_steps": steps} if steps > config.lr_warmup_steps else {}


def stricter_clipping(config: TrainConfig) -> Changed:
    """Gradients to half of what they may be now."""
    limit = 1.0 if config.max_grad_norm == 0 or config.max_grad_norm > 1 else config.max_grad_norm / 2
    return {"max_grad_norm": limit} if limit else {}


def averaged(config: TrainConfig) -> Changed:
    """The average of the last hundred steps."""
    long_enough = config.max_train_steps is None or config.max_train_steps >= 100
    return {"ema_decay": 0.99} if config.ema_decay is None and long_enough else {}


def min_snr(config: TrainConfig) -> Changed:
    """Min-SNR weighting."""
    return {"min_snr_gamma": 5.0} if config.min_snr_gamma is None else {}


def dropout(config: TrainConfig) -> Changed:
    """A tenth of an adapter layer's inputs."""
    return {"lora_dropout": 0.1} if config.lora_dropout < 0.1 else {}


def varied_pictures(config: TrainConfig) -> Changed:
    """Crops and mirrors."""
    crop = {"augment_crop": 0.1} if config.augment_crop < 0.1 else {}
    return crop if config.horizontal_flip else {"horizontal_flip": True, **crop}


def more_layers(config: TrainConfig) -> Changed:
    """The next larger set of layers."""
    if config.pretrained_lora:
        return {}  # the form of an adapter that a run goes on from is given
    wider = _WIDER.get(config.target_modules) if isinstance(config.target_modules, TargetPreset) else None
    return {"target_modules": wider} if wider else {}


def fewer_layers(config: TrainConfig) -> Changed:
    """Attention alone: what a picture shows stays the base's."""
    if config.pretrained_lora:
        return {}  # the form of an adapter that a run goes on from is given
    return {} if config.target_modules == TargetPreset.ATTENTION else {"target_modules": TargetPreset.ATTENTION}


def usual_caption_dropout(config: TrainConfig) -> Changed:
    """A tenth, where more captions are dropped."""
    return {"caption_dropout": 0.1} if config.caption_dropout > 0.1 else {}


def usual_scale(config: TrainConfig) -> Changed:
    """Alpha as the rank."""
    if config.pretrained_lora:
        return {}  # the form of an adapter that a run goes on from is given
    return {"lora_alpha": None} if config.alpha > config.lora_rank else {}


def stronger_prior(config: TrainConfig) -> Changed:
    """More regularisation pictures, where there are any."""
    if not (config.reg_dataset or config.reg_data_dir) or config.reg_share >= 0.5:
        return {}
    return {"reg_share": min(0.5, 2 * config.reg_share)}


def rarer_checkpoints(config: TrainConfig) -> Changed:
    """At least a hundred steps apart."""
    short = config.max_train_steps is not None and config.max_train_steps <= 100
    return {"save_steps": 100} if config.save_steps < 100 and not short else {}


def no_samples(config: TrainConfig) -> Changed:
    """Pictures are drawn by the judgement alone."""
    if not config.sample_prompts:
        return {}
    return {"sample_prompts": (), **({} if config.sample_steps is None else {"sample_steps": None})}
