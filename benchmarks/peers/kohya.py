"""kohya's sd-scripts: its own train_network.py, in an environment of its own.

It is no package, so it must be there already. TERROIR_KOHYA_DIR is a checkout of https://github.com/kohya-ss/sd-scripts
(commit 48d368fa557731ad0488c07304dfeba8c07910eb was tried), TERROIR_KOHYA_PYTHON the Python of an environment that has
what its requirements.txt names, and torch and torchvision; for a fair comparison torch should be ours. Tried: torch
2.15.0, torchvision 0.29.2, transformers 4.54.1, diffusers 0.32.1, accelerate 1.6.0, safetensors 0.4.5,
huggingface-hub 0.34.3, opencv-python 4.10.0.84, einops 0.7.0, toml 0.10.2, voluptuous 0.15.2, imagesize 1.4.1 and
rich 14.1.0; the rest of its requirements this training does not import.

Its denoiser has SD 1.5's shape written into it, so it trains no smaller base. It caches latents; texts of SD 1.x it
encodes in every step, and there is no option against that. A text encoder as transformers 5 saves it has names that 4
does not know: its weights are then drawn anew, which for a base of random weights changes nothing that is measured.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from terroir.client import scan_folder
from terroir.training.config import TrainConfig

NAME: Final = "kohya sd-scripts train_network.py"
MISSING: Final = "TERROIR_KOHYA_DIR and TERROIR_KOHYA_PYTHON are not set (benchmarks/peers/kohya.py says to what)"
"""Reason of a row that was not measured."""
_DRIVER: Final = Path(__file__).with_name("kohya_driver.py")
_SCRIPT: Final = "train_network.py"
_TOKENIZER: Final = "openai_clip-vit-large-patch14"
"""What it calls the tokenizer of SD 1.x in its cache; without it there it would ask the network."""


@dataclass(frozen=True)
class Kohya:
    """Where sd-scripts is."""

    folder: Path
    python: str

    @classmethod
    def of_environment(cls) -> Self | None:
        """As the variables say; None where they are not set."""
        folder, python = os.environ.get("TERROIR_KOHYA_DIR"), os.environ.get("TERROIR_KOHYA_PYTHON")
        return cls(Path(folder).expanduser().resolve(), python) if folder and python else None

    @property
    def name(self) -> str:
        """With the commit, if this is a checkout."""
        command = ["git", "-C", str(self.folder), "rev-parse", "--short=12", "HEAD"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"{NAME}, {f'commit {told.stdout.strip()}' if told.returncode == 0 else 'unknown commit'}"

    def command(self, base: Path, pictures: Path, config: TrainConfig, threads: int, work: Path) -> list[str]:
        """What trains an adapter on the linear layers of the denoiser's transformer blocks, on the CPU in fp32.

        `work` gets the pictures as it wants them, and its results.
        """
        _lay_out(pictures, work / "pictures" / "1_style")
        _write_tokenizer(base / "tokenizer" / "tokenizer.json", work / "tokenizers" / _TOKENIZER)
        options = {
            "pretrained_model_name_or_path": base,
            "tokenizer_cache_dir": work / "tokenizers",
            "train_data_dir": work / "pictures",
            "caption_extension": ".txt",
            "resolution": f"{config.resolution},{config.resolution}",
            "train_batch_size": config.batch_size,
            "max_train_steps": config.max_train_steps,
            "learning_rate": config.learning_rate,
            "max_grad_norm": config.max_grad_norm,
            "optimizer_type": "AdamW",
            "network_module": "networks.lora",
            "network_dim": config.lora_rank,
            "network_alpha": config.alpha,
            "mixed_precision": "no",
            "save_precision": "float",
            # Latents are in memory: reading them in other processes would only take its cores away.
            "max_data_loader_n_workers": 0,
            "seed": config.seed,
            "output_dir": work / "out",
        }
        flags = ("--network_train_unet_only", "--cache_latents", "--sdpa")
        told = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        return [self.python, str(_DRIVER), str(threads), str(self.folder / _SCRIPT), *told, *flags]

    @staticmethod
    def environment(threads: int) -> Mapping[str, str]:
        """Variables for that command."""
        return {
            "OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
        }  # fmt: skip


def step_seconds(printed: str, steps: int) -> list[float]:
    """Between the ends of its steps. Raises ValueError if it made another number of them."""
    ends: list[float] = json.loads(printed.splitlines()[-1])
    if len(ends) != steps:
        raise ValueError(f"{NAME} made {len(ends)} updates of {steps}")
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def _lay_out(pictures: Path, folder: Path) -> None:
    """Pictures with a caption beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for found in scan_folder(pictures):
        (folder / found.path.name).write_bytes(found.path.read_bytes())
        (folder / found.path.name).with_suffix(".txt").write_text(found.caption, encoding="utf-8")


def _write_tokenizer(whole: Path, folder: Path) -> None:
    """Vocabulary and merges apart, as transformers 4 reads a CLIP tokenizer; 5 writes them in one file."""
    model: dict[str, Any] = json.loads(whole.read_text(encoding="utf-8"))["model"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = "".join(f"{line}\n" for line in _lines(model["merges"]))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}), encoding="utf-8")


def _lines(merges: list[Any]) -> Iterator[str]:
    return (merge if isinstance(merge, str) else " ".join(merge) for merge in merges)
