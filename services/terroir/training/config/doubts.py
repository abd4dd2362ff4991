"""What is allowed in a configuration but probably not meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from terroir.training.config.model import TrainConfig
from terroir.training.config.profiles import profile_values

_Needs = Callable[[TrainConfig], bool]
_IDLE: Final[tuple[tuple[tuple[str, ...], str, _Needs], ...]] = (
    (("bucket_reso_steps", "min_bucket_reso", "max_bucket_reso", "bucket_no_upscale"), "enable_bucket: true",
     lambda c: c.enable_bucket),
    (("augment_erase_area",), "augment_erase above 0", lambda c: c.augment_erase > 0),
    (("keep_tokens",), "shuffle_caption: true", lambda c: c.shuffle_caption),
    (("reg_share", "prior_loss_weight"), "reg_dataset or reg_data_dir",
     lambda c: bool(c.reg_dataset or c.reg_data_dir)),
    (("unmasked_weight",), "masked_loss: true", lambda c: c.masked_loss),
    (("lr_num_cycles",), "lr_scheduler: cosine_with_restarts",
     lambda c: "cosine_with_restarts" in (c.lr_scheduler, c.text_encoder_lr_scheduler)),
    (("sample_steps",), "sample_prompts", lambda c: bool(c.sample_prompts)),
    (("judge_prompts", "judge_seeds", "judge_checkpoints", "min_style_gain", "min_prompt_agreement", "min_diversity",
      "max_memorisation"), "publish_gate: enforce or warn", lambda c: c.publish_gate != "off"),
)  # fmt: skip
"""Keys that do nothing without another, and what they need."""


def doubts(config: TrainConfig) -> tuple[str, ...]:
    """One sentence each; empty for a configuration without doubts."""
    return (*_idle(config), *_steps(config), *_rates(config), *_sizes(config), *_places(config), *_variants(config))


def _idle(config: TrainConfig) -> Iterator[str]:
    """Keys with a value of their own that change nothing; defaults and what a profile set are nobody's mistake."""
    told = config.model_dump()
    usual = {
        name: field.get_default(call_default_factory=True, validated_data=told)
        for name, field in TrainConfig.model_fields.items()
    }
    for layer in profile_values(config.profile):
        usual |= layer
    for keys, needed, met in _IDLE:
        if not met(config):
            for key in keys:
                if (value := getattr(config, key)) != usual[key]:
                    yield f"{key} {value} changes nothing without {needed}"


def _steps(config: TrainConfig) -> Iterator[str]:
    total = config.max_train_steps
    if total is None:
        return
    if config.lr_warmup_steps >= total:
        yield (
            f"lr_warmup_steps {config.lr_warmup_steps} is not below max_train_steps {total}: "
            "the full learning rate is never reached"
        )
    if config.text_encoder_stop_step is not None and config.text_encoder_stop_step >= total:
        yield (
            f"text_encoder_stop_step {config.text_encoder_stop_step} is not below max_train_steps {total}: "
            "the text encoder is trained to the end"
        )
    if config.sample_prompts and config.sample_steps is not None and config.sample_steps > total:
        yield f"sample_steps {config.sample_steps} exceeds max_train_steps {total}: no sample is drawn before the end"
    if config.publish_gate != "off" and config.save_steps >= total and config.judge_checkpoints > 1:
        yield f"save_steps {config.save_steps} leaves one checkpoint in {total} steps: there is no best one to choose"


def _rates(config: TrainConfig) -> Iterator[str]:
    if config.alpha > 2 * config.lora_rank:
        yield f"lora_alpha {config.alpha:g} is more than twice lora_rank {config.lora_rank}: updates are large"
    if config.learning_rate > 1e-2 and config.optimizer != "sgd":
        yield f"learning_rate {config.learning_rate:g} is high for {config.optimizer}: 1e-4 to 3e-3 is usual"
    if config.text_encoder_lr is not None and config.text_encoder_lr > config.learning_rate:
        yield (
            f"text_encoder_lr {config.text_encoder_lr:g} exceeds learning_rate {config.learning_rate:g}: text encoders "
            "spoil first, a tenth to a half is usual"
        )
    if config.optimizer == "sgd" and config.loraplus_lr_ratio is not None:
        yield "loraplus_lr_ratio was made for Adam's updates; with optimizer sgd it only scales the up factors' rate"


def _sizes(config: TrainConfig) -> Iterator[str]:
    base, side = config.base_model.lower(), config.resolution
    if config.enable_bucket and side % config.bucket_reso_steps:
        yield (
            f"resolution {side} is no multiple of bucket_reso_steps {config.bucket_reso_steps}: "
            "square pictures go to a size that is none"
        )
    if "xl" in base and side < 768:
        yield f"resolution {side} is small for {config.base_model}: SDXL draws at 1024"
    if base != "terroir-tiny" and "tiny" not in base and side < 256:
        yield f"resolution {side} is the embedded tiny base's; SD 1.5 draws at 512, SDXL at 1024"
    if config.caption_dropout == 1:
        yield "caption_dropout 1 drops every caption: the style follows no prompt"


def _places(config: TrainConfig) -> Iterator[str]:
    for service, local in (("dataset", "train_data_dir"), ("reg_dataset", "reg_data_dir")):
        if getattr(config, service) and getattr(config, local):
            yield f"{service} and {local} are both set: the service reads {service}, a local run {local}"


def _variants(config: TrainConfig) -> Iterator[str]:
    if config.use_dora and config.base_quantization != "none":
        yield (
            f"use_dora with base_quantization {config.base_quantization}: lengths of rows are learnt against rounded "
            "weights, and differ on the base as it is served"
        )
    if config.gpus == 0 and config.mixed_precision == "fp16":
        yield "mixed_precision fp16 with gpus 0: processors compute fp16 slowly; bf16 or no is usual there"
    if config.gpus == 0 and config.base_quantization != "none":
        yield f"base_quantization {config.base_quantization} with gpus 0: it saves memory of a GPU"
