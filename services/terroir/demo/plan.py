"""What the demo trains and draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from PIL import Image

from terroir.client import scan_folder


@dataclass(frozen=True)
class Style:
    """One example style: its folder of pictures and what is said about it (`style.yaml`)."""

    adapter: str
    folder: Path
    title: str
    region: str
    trigger: str
    description: str
    license: str
    rights: str

    @classmethod
    def load(cls, folder: Path) -> Style:
        """Read `style.yaml` of an example folder."""
        fields = yaml.safe_load((folder / "style.yaml").read_text(encoding="utf-8"))
        return cls(adapter=folder.name, folder=folder, **fields)

    def pictures(self) -> list[Image.Image]:
        """The style's own pictures, RGB."""
        pictures = []
        for found in scan_folder(self.folder):
            with Image.open(found.path) as picture:
                pictures.append(picture.convert("RGB"))
        return pictures

    @property
    def config(self) -> str:
        """The training configuration beside the pictures."""
        return (self.folder / "train.yaml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Column:
    """One column of the contact sheet: a stack of adapters with weights."""

    title: str
    weights: tuple[tuple[str, float], ...] = ()


PROMPTS: Final = (
    "a red teapot by a river in daylight",
    "a yellow pagoda on green hills at sunset",
    "a white boat by a river at night",
    "a blue house in the snow in daylight",
    "a green fish in the desert at sunset",
    "an orange lantern in the city at night",
)
SEEDS: Final = (11, 22, 33)
STACK_WEIGHT: Final = 0.6


def columns(first: Style, second: Style) -> tuple[Column, ...]:
    """Base, each style at 0.5 and 1, and both stacked."""
    return (
        Column("base (weight 0)"),
        Column(f"{first.title} 0.5", ((first.adapter, 0.5),)),
        Column(f"{first.title} 1.0", ((first.adapter, 1.0),)),
        Column(f"{second.title} 0.5", ((second.adapter, 0.5),)),
        Column(f"{second.title} 1.0", ((second.adapter, 1.0),)),
        Column(
            f"both {STACK_WEIGHT} + {STACK_WEIGHT}",
            ((first.adapter, STACK_WEIGHT), (second.adapter, STACK_WEIGHT)),
        ),
    )


def prompt_for(prompt: str, column: Column, styles: dict[str, Style]) -> str:
    """The prompt with the trigger words of the column's styles in front, as captions had them in training."""
    triggers = [styles[adapter].trigger for adapter, _ in column.weights]
    return ", ".join([*triggers, prompt])
