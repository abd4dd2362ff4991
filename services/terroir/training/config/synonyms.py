"""Spellings of other trainers, and the key that each stands for."""

from __future__ import annotations

from typing import Final

SYNONYMS: Final = {
    "network_dim": "lora_rank",
    "network_alpha": "lora_alpha",
    "network_dropout": "lora_dropout",
    "conv_dim": "conv_rank",
    "train_batch_size": "batch_size",
    "save_every_n_steps": "save_steps",
    "pretrained_model": "base_model",
    "pretrained_model_name_or_path": "base_model",
    "network_weights": "pretrained_lora",
    "output_name": "adapter",
    "name": "adapter",
    "max_train_epochs": "epochs",
    "num_train_epochs": "epochs",
    "unet_lr": "learning_rate",
    "text_encoder_learning_rate": "text_encoder_lr",
    "loraplus_unet_lr_ratio": "loraplus_lr_ratio",
    "optimizer_type": "optimizer",
    "caption_dropout_rate": "caption_dropout",
    "snr_gamma": "min_snr_gamma",
    "flip_aug": "horizontal_flip",
    "random_flip": "horizontal_flip",
    "lr_scheduler_type": "lr_scheduler",
    "lr_scheduler_num_cycles": "lr_num_cycles",
    "max_steps": "max_train_steps",
}
