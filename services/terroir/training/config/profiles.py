"""Presets that a run starts from: one by hardware and one by data, each value with its reason.

What they set follows what public trainers do and what their users report (kohya sd-scripts, lora-scripts, OneTrainer,
Hang et al. on min-SNR). Rates are for SD 1.5 and SDXL with four pictures an optimiser step, which is what every
profile for a GPU makes, so that the same rate means the same on every card. No key is set by profiles of both kinds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

Value = bool | int | float | str


@dataclass(frozen=True)
class Setting:
    """One value and why it is that."""

    key: str
    value: Value
    reason: str


@dataclass(frozen=True)
class Profile:
    """A named set of values."""

    name: str
    kind: Literal["hardware", "data"]
    summary: str
    """When to take it."""
    settings: tuple[Setting, ...]

    @property
    def values(self) -> dict[str, Value]:
        """Keys and values alone."""
        return {setting.key: setting.value for setting in self.settings}


_CPU_SMOKE = Profile(
    "cpu-smoke",
    "hardware",
    "Does it run at all? Twenty steps of the tiny base on a processor; no style comes of it.",
    (
        Setting("resolution", 64, "the tiny base's own size"),
        Setting("batch_size", 2, "two pictures try everything that a batch can get wrong"),
        Setting("gradient_accumulation_steps", 1, "nothing to save memory for"),
        Setting("max_train_steps", 20, "enough for a loss curve and for both files"),
        Setting("save_steps", 10, "so that a checkpoint is written, and going on from it can be tried"),
        Setting("mixed_precision", "no", "many processors compute bf16 slower than fp32"),
        Setting("gradient_checkpointing", False, "memory is no concern at this size"),
        Setting("gpus", 0, "runs where no GPU is free"),
    ),
)
_GPU_12GB = Profile(
    "gpu-12gb",
    "hardware",
    "SD 1.5 at 512 × 512 on cards such as RTX 3060 and 4070. SDXL fits with `resolution: 1024`, `batch_size: 1`, "
    "`gradient_accumulation_steps: 4`.",
    (
        Setting("resolution", 512, "what SD 1.5 was trained at"),
        Setting("batch_size", 2, "with recomputed activations there is room for two"),
        Setting("gradient_accumulation_steps", 2, "makes four pictures a step, as on larger cards"),
        Setting("mixed_precision", "bf16", "half the memory; cards before Ampere (RTX 20, T4) have only `fp16`"),
        Setting("gradient_checkpointing", True, "activations are the largest part; costs about a third of the speed"),
        Setting("save_steps", 100, "a checkpoint costs less than two per cent of that many steps"),
    ),
)
_GPU_24GB = Profile(
    "gpu-24gb",
    "hardware",
    "SDXL at 1024 × 1024 on cards such as RTX 3090, 4090, A10 and L4. For SD 1.5 overrule `resolution: 512`, "
    "`gradient_checkpointing: false`.",
    (
        Setting("resolution", 1024, "what SDXL was trained at"),
        Setting("batch_size", 2, "SDXL with recomputed activations leaves room for more; two keep room for long sides"),
        Setting("gradient_accumulation_steps", 2, "makes four pictures a step, as on other cards"),
        Setting("mixed_precision", "bf16", "half the memory, and no loss scale to overflow as with fp16"),
        Setting("gradient_checkpointing", True, "without it two pictures of SDXL do not fit"),
        Setting("save_steps", 100, "a checkpoint costs less than two per cent of that many steps"),
    ),
)
_GPU_80GB = Profile(
    "gpu-80gb",
    "hardware",
    "SDXL at 1024 × 1024 on A100 80 GB, H100 and larger. For SD 1.5 overrule `resolution: 512`.",
    (
        Setting("resolution", 1024, "what SDXL was trained at"),
        Setting("batch_size", 4, "four pictures in one pass keep a large card busy"),
        Setting("gradient_accumulation_steps", 1, "no need to split the four"),
        Setting("mixed_precision", "bf16", "twice the speed of fp32 on these cards"),
        Setting("gradient_checkpointing", False, "activations fit: 1.3 to 1.6 times faster than computing them twice"),
        Setting("save_steps", 100, "a checkpoint costs less than two per cent of that many steps"),
    ),
)
_FEW_PICTURES = Profile(
    "few-pictures",
    "data",
    "Up to about thirty pictures. They must not be learnt by heart: few weights, much variation, a strict gate.",
    (
        Setting("lora_rank", 8, "few weights hold a look, but not thirty pictures"),
        Setting("lora_alpha", 8, "as the rank: scale 1"),
        Setting("lora_dropout", 0.1, "no single weight can remember a picture"),
        Setting("learning_rate", 1e-4, "usual for AdamW on a denoiser's adapter"),
        Setting("lr_scheduler", "cosine", "the last steps refine instead of wandering"),
        Setting("lr_warmup_steps", 20, "the first gradients of a new adapter are the largest"),
        Setting("epochs", 50, "as sd-scripts users do it: ten epochs of five repeats"),
        Setting("enable_bucket", False, "so few pictures would leave most sizes with one"),
        Setting(
            "horizontal_flip", True, "twice as many pictures; set false where writing or faces must not be mirrored"
        ),
        Setting("augment_crop", 0.1, "a composition is never quite the same twice"),
        Setting("augment_color_jitter", 0.05, "slight: colour is part of a style"),
        Setting("augment_variants", 8, "more variants to tell apart than pictures to remember"),
        Setting("caption_dropout", 0.1, "what guidance needs, and usual"),
        Setting("min_snr_gamma", 5.0, "fewer steps to the same quality (Hang et al.), so less time to over-fit"),
        Setting("publish_gate", "enforce", "copies of training pictures must not be published"),
        Setting("judge_checkpoints", 6, "the best one often lies well before the end"),
    ),
)
_CLEAN_SET = Profile(
    "clean-set",
    "data",
    "About 50 to 200 reviewed pictures with captions that are right. The usual case.",
    (
        Setting("lora_rank", 16, "room for line, texture and palette of one region"),
        Setting("lora_alpha", 16, "as the rank: scale 1"),
        Setting("learning_rate", 1e-4, "usual for AdamW on a denoiser's adapter"),
        Setting("lr_scheduler", "cosine", "the last steps refine instead of wandering"),
        Setting("lr_warmup_steps", 50, "the first gradients of a new adapter are the largest"),
        Setting("epochs", 20, "about 500 steps of four for a hundred pictures"),
        Setting("enable_bucket", True, "photos of several shapes keep their composition"),
        Setting("caption_dropout", 0.1, "what guidance needs, and usual"),
        Setting("min_snr_gamma", 5.0, "fewer steps to the same quality (Hang et al.)"),
        Setting("noise_offset", 0.05, "night scenes get dark; half of what sd-scripts' presets take"),
        Setting("publish_gate", "enforce", "only a checkpoint that passes is published"),
        Setting("judge_checkpoints", 4, "spread over the run"),
    ),
)
_NOISY_SET = Profile(
    "noisy-set",
    "data",
    "Pictures from many hands, of mixed quality, some captions wrong. Slow, averaged, sceptical of captions.",
    (
        Setting("lora_rank", 16, "room for one look"),
        Setting("lora_alpha", 8, "half the scale: a bad picture moves less"),
        Setting("lora_dropout", 0.1, "what only one picture has is not learnt"),
        Setting("learning_rate", 5e-5, "half the usual rate: gradients contradict each other"),
        Setting("lr_scheduler", "cosine", "the last steps refine instead of wandering"),
        Setting("lr_warmup_steps", 100, "no early picture decides the direction"),
        Setting("epochs", 10, "each picture is seen less often than in a clean set"),
        Setting("max_grad_norm", 0.5, "an odd picture's gradient is cut to half the usual norm"),
        Setting("ema_decay", 0.995, "the average of the last 200 steps instead of the last one's noise"),
        Setting("enable_bucket", True, "shapes are as mixed as everything else"),
        Setting("augment_crop", 0.05, "cuts borders and corner marks off"),
        Setting("caption_dropout", 0.2, "leans less on captions that may be wrong"),
        Setting("min_snr_gamma", 5.0, "fewer steps to the same quality (Hang et al.)"),
        Setting("publish_gate", "enforce", "only a checkpoint that passes is published"),
        Setting("judge_checkpoints", 4, "spread over the run"),
    ),
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (_CPU_SMOKE, _GPU_12GB, _GPU_24GB, _GPU_80GB, _FEW_PICTURES, _CLEAN_SET, _NOISY_SET)
    }
)


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError for a name that is unknown, naming the nearest, and for two of one kind."""
    for name in names:
        if name not in PROFILES:
            nearest = difflib.get_close_matches(name.lower(), PROFILES, n=1, cutoff=0.0)[0]
            raise ValueError(f"{name[:80]!r} is unknown; the nearest is {nearest!r}, all are {', '.join(PROFILES)}")
    for kind in ("hardware", "data"):
        of_kind = [name for name in names if PROFILES[name].kind == kind]
        if len(of_kind) > 1:
            raise ValueError(f"{' and '.join(of_kind)} are both by {kind}; keep one")


def profile_values(names: Sequence[str]) -> list[dict[str, Any]]:
    """The values of known profiles as layers, the lowest first: hardware lies over data."""
    return [dict(PROFILES[name].values) for name in sorted(names, key=lambda name: PROFILES[name].kind)]
