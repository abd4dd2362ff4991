"""The troubleshooting table: symptoms, how they are recognised, and what helps, most promising first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from terroir.training.advice import changes as change
from terroir.training.advice.values import Remedy, Row, Symptom

_SPLIT = Remedy(
    "halve `batch_size`, double `gradient_accumulation_steps`", "the same step in half the memory", change.split_batch
)
_HALF_STEPS = Remedy("halve `max_train_steps` or `epochs`", "pictures are seen half as often", change.fewer_steps)
_THIRD_RATE = Remedy("divide `learning_rate` by three", "steps that are too long miss the valley", change.third_of_rate)
_HIGHER_RATE = Remedy(
    "raise `learning_rate`: 1e-4 is usual for SD 1.5 and SDXL, 3e-3 for the tiny base",
    "what was not learnt at this rate",
    change.higher_rate,
)
_LARGER_RANK = Remedy("double `lora_rank`", "room for more than palette", change.larger_rank)
_DROPOUT = Remedy("`lora_dropout: 0.1`", "no single weight can remember a picture", change.dropout)
_SMALLER_RANK = Remedy("halve `lora_rank`, `lora_alpha` with it", "fewer weights remember less", change.smaller_rank)
_SAFER = Remedy(
    "`mixed_precision: bf16` for `fp16`, `no` for `bf16`", "fp16 overflows at 65504", change.safer_precision
)
_NO_TEXT_ENCODER = Remedy(
    "leave `text_encoder_lr` out", "a style is learnt without the text encoder", change.without_text_encoder
)
_MORE_PICTURES = Remedy("add pictures to the dataset", "variety is what no key can add")

_ROWS = (
    Row(
        Symptom.OUT_OF_MEMORY,
        "Out of memory",
        "The run ends with `OUT_OF_MEMORY`, or the worker was killed by its memory limit.",
        (
            _SPLIT,
            Remedy("`mixed_precision: bf16`", "activations take half", change.lower_precision),
            Remedy("`gradient_checkpointing: true`", "activations are computed twice, not kept", change.recompute),
            _NO_TEXT_ENCODER,
            Remedy("lower `resolution` by a quarter", "nine sixteenths of the pixels", change.smaller_pictures),
            Remedy("`base_quantization: nf4` on a GPU", "the base takes a quarter", change.quantised_base),
            Remedy("halve `lora_rank`", "weights, gradients and moments take half", change.smaller_rank),
            Remedy("train on a machine or GPU share with more memory (`gpus`)", "no key is left to lower"),
        ),
    ),
    Row(
        Symptom.NON_FINITE,
        "The loss is NaN",
        "Steps are skipped in the log, then the run ends with `NON_FINITE_LOSS`; its last good checkpoint is kept.",
        (
            _SAFER,
            _THIRD_RATE,
            Remedy("`lr_warmup_steps` of a twentieth of the run", "first gradients are the largest", change.warm_up),
            Remedy("`lora_alpha` no larger than `lora_rank`", "scale multiplies every step", change.usual_scale),
            Remedy("look at the pictures of the skipped steps", "one unusual picture can be enough"),
        ),
    ),
    Row(
        Symptom.DIVERGING,
        "The loss rises",
        "The mean loss of the last quarter of the run is half as much again as that of the quarter after the start.",
        (
            _THIRD_RATE,
            Remedy("`lr_warmup_steps` of a twentieth of the run", "first gradients are the largest", change.warm_up),
            Remedy("halve `max_grad_norm`", "no single batch throws the weights off", change.stricter_clipping),
        ),
    ),
    Row(
        Symptom.NOISY_LOSS,
        "The loss is noisy",
        "Single losses scatter by more than half of their mean. Some scatter is natural: noise levels differ from step "
        "to step, and the loss of a diffusion model says little about its pictures.",
        (
            Remedy("multiply `gradient_accumulation_steps` by four", "a gradient of four times the pictures has half "
                   "the scatter", change.more_pictures_a_step),
            Remedy("`min_snr_gamma: 5`", "easy and hard noise levels weigh alike", change.min_snr),
            Remedy("`ema_decay: 0.99`", "the average of a hundred steps is published", change.averaged),
            Remedy("halve `learning_rate`", "weights follow single batches less", change.lower_rate),
        ),
    ),
    Row(
        Symptom.FLAT_LOSS,
        "The loss does not fall",
        "In 400 steps or more, the last quarter's mean loss is no lower than the first quarter's by more than chance. "
        "A style of few pictures can be learnt all the same: look at samples before anything else.",
        (
            _HIGHER_RATE,
            Remedy("`min_snr_gamma: 5`", "noise levels at which there is little to learn weigh less", change.min_snr),
            _LARGER_RANK,
            Remedy("read the captions: `terroir dataset images`", "what they contradict cannot be learnt"),
        ),
    ),
    Row(
        Symptom.TOO_WEAK,
        "The style is too weak",
        "The judgement's style gain is below `min_style_gain`; pictures look like the base's.",
        (
            _HIGHER_RATE,
            Remedy("double `max_train_steps` or `epochs`", "it may only need longer", change.more_steps),
            _LARGER_RANK,
            Remedy("`target_modules: attention-ff` or `all-linear-conv`", "line and texture lie outside attention",
                   change.more_layers),
            Remedy("draw with the trigger word first in the prompt", "captions had it there in training"),
        ),
    ),
    Row(
        Symptom.OVER_FITTED,
        "Over-fitted: pictures are copies of training pictures",
        "The judgement's memorisation exceeds `max_memorisation`, or compositions of the set return for other prompts.",
        (
            _HALF_STEPS,
            Remedy("`horizontal_flip: true`, `augment_crop: 0.1`", "no picture is seen twice the same",
                   change.varied_pictures),
            _SMALLER_RANK,
            _DROPOUT,
            _MORE_PICTURES,
        ),
    ),
    Row(
        Symptom.LITTLE_VARIETY,
        "Pictures of one prompt are all alike",
        "The judgement's diversity is below `min_diversity`: seeds hardly change the picture.",
        (
            _HALF_STEPS,
            Remedy("halve `learning_rate`", "the base's own variety is overwritten more slowly", change.lower_rate),
            _DROPOUT,
            _NO_TEXT_ENCODER,
            _MORE_PICTURES,
        ),
    ),
    Row(
        Symptom.CAPTIONS_IGNORED,
        "Prompts are ignored",
        "The judgement's prompt agreement is below `min_prompt_agreement`: the subject is not what was asked for.",
        (
            Remedy("`caption_dropout: 0.1`", "more trains it to draw without reading", change.usual_caption_dropout),
            _NO_TEXT_ENCODER,
            _HALF_STEPS,
            Remedy("`target_modules: attention`", "what a picture shows stays the base's", change.fewer_layers),
            Remedy("read the captions: `terroir dataset images`", "a wrong one teaches to ignore it"),
        ),
    ),
    Row(
        Symptom.STYLE_LEAKS,
        "The style leaks into everything",
        "Prompts without the trigger word come out in the style too.",
        (
            Remedy("more `reg_share`", "ordinary pictures hold the base where it was", change.stronger_prior),
            Remedy("`reg_dataset` or `reg_data_dir` with ordinary pictures", "they hold the base where it was"),
            Remedy("a `trigger_word` that no ordinary caption has", "the style needs a name of its own"),
            _HALF_STEPS,
            _NO_TEXT_ENCODER,
        ),
    ),
    Row(
        Symptom.TEXT_ENCODER_SPOILT,
        "The text encoder is spoilt",
        "With `text_encoder_lr`: subjects change or fall apart early, while the style is still weak. Text encoders "
        "over-fit first.",
        (
            Remedy("`text_encoder_lr` a tenth of `learning_rate`, `text_encoder_stop_step` a third of the run",
                   "it needs far less than the denoiser", change.gentler_text_encoder),
            _NO_TEXT_ENCODER,
        ),
    ),
    Row(
        Symptom.BLACK_PICTURES,
        "Pictures are black or of one colour",
        "Samples are black, or noise of one colour.",
        (
            _SAFER,
            _THIRD_RATE,
            Remedy("`lora_alpha` no larger than `lora_rank`", "scale multiplies every step", change.usual_scale),
            Remedy("set `prediction_type` if the base's scheduler_config.json says it wrongly",
                   "an epsilon adapter on a v-prediction base draws noise"),
            Remedy("draw with the adapter's weight at 0.5, then 0", "0 shows whether the base itself is black"),
        ),
    ),
    Row(
        Symptom.TOO_SLOW,
        "Training is slow",
        "The steps per second of `terroir train watch` are far below docs/benchmarks.md on the same hardware.",
        (
            Remedy("`gradient_checkpointing: false` where memory allows", "1.3 to 1.6 times faster",
                   change.keep_activations),
            Remedy("`mixed_precision: bf16` on a GPU", "tensor cores", change.lower_precision),
            _NO_TEXT_ENCODER,
            Remedy("double `batch_size`, halve `gradient_accumulation_steps`", "one large pass is faster than two",
                   change.join_batch),
            Remedy("`save_steps: 100` or more", "checkpoints take time", change.rarer_checkpoints),
            Remedy("no `sample_prompts`", "drawing takes the place of training", change.no_samples),
            Remedy("more `num_workers`", "several GPUs share a step"),
        ),
    ),
)  # fmt: skip

ROWS: Final[Mapping[Symptom, Row]] = {row.symptom: row for row in _ROWS}
