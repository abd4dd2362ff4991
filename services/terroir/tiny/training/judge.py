"""Judge the tiny base: a classifier trained on renders names subject, colour, scene and time of generated pictures.

Prompts are captions of combinations that training never drew. The classifier's own accuracy on held-out renders is
published beside the figures, because a judge is no better than that. It also draws the sample grids of the model card.

    python -m terroir.tiny.training.judge --base build/tiny/base --out build/tiny/judged
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from terroir.tiny.training.vae import to_tensor
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import COLOURS, SCENES, SUBJECTS, TIMES, Scene, all_scenes, caption

_ATTRIBUTES: Final = {"subject": SUBJECTS, "colour": COLOURS, "scene": SCENES, "time": TIMES}
_STEPS: Final = 20
_GUIDANCE: Final = 3.0


class Classifier(nn.Module):
    """Small convolutional network with one head an attribute; input `[batch, 3, 64, 64]` in -1 … 1."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Conv2d(fan_in, fan_out, 3, 2, 1), nn.GroupNorm(8, fan_out), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 192), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(192, len(values)) for name, values in _ATTRIBUTES.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits `[batch, values]` by attribute."""
        features = self.trunk(pictures)
        return {name: head(features) for name, head in self.heads.items()}


def _targets(scenes: list[Scene]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([values.index(getattr(scene, name)) for scene in scenes])
        for name, values in _ATTRIBUTES.items()
    }


def train_classifier(steps: int = 900, batch: int = 64) -> Classifier:
    """Train on renders of the training combinations, lightly blurred and noised; deterministic."""
    torch.manual_seed(1)
    model = Classifier()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scenes = all_scenes(held_out=False)
    for step in range(steps):
        rng = np.random.default_rng((41, step))
        chosen = [scenes[i] for i in rng.integers(len(scenes), size=batch)]
        pictures = to_tensor([render(scene, rng) for scene in chosen])
        pictures = pictures + torch.randn_like(pictures) * float(rng.uniform(0, 0.15))
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / steps) + 1e-5
        targets = _targets(chosen)
        parts = [nn.functional.cross_entropy(logits, targets[name]) for name, logits in model(pictures).items()]
        loss = torch.stack(parts).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: Classifier, pictures: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Share judged right by attribute, and `all` four at once."""
    right = {name: logits.argmax(1) == _targets(scenes)[name] for name, logits in model(pictures).items()}
    figures = {name: round(float(hits.float().mean()), 3) for name, hits in right.items()}
    figures["all"] = round(float(torch.stack(list(right.values())).all(0).float().mean()), 3)
    return figures


def generate(
    pipeline: StableDiffusionPipeline, prompts: list[str], *, seed: int, width: int = 64, height: int = 64
) -> list[Image.Image]:
    """One picture a prompt, each with its own generator, in batches of 20."""
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), 20):
        chunk = prompts[start : start + 20]
        generators = [torch.Generator("cpu").manual_seed(seed + start + i) for i in range(len(chunk))]
        pictures += pipeline(
            chunk,
            num_inference_steps=_STEPS,
            guidance_scale=_GUIDANCE,
            generator=generators,
            width=width,
            height=height,
        ).images
    return pictures


def sheet(pictures: list[Image.Image], columns: int, scale: int = 2) -> Image.Image:
    """Lay pictures of one size out in rows."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), "white")
    for index, picture in enumerate(pictures):
        page.paste(picture, (index % columns * (width + 2), index // columns * (height + 2)))
    return page.resize((page.width * scale, page.height * scale), Image.Resampling.NEAREST)


def main() -> None:
    """Command line of the judgement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="diffusers folder to judge")
    parser.add_argument("--out", type=Path, required=True, help="folder of figures and grids")
    parser.add_argument("--pictures", type=int, default=240, help="pictures to judge")
    parser.add_argument("--classifier", type=Path, help="where to keep the classifier between runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if options.classifier and options.classifier.exists():
        model = Classifier()
        model.load_state_dict(torch.load(options.classifier, weights_only=True))
        model.eval()
    else:
        model = train_classifier()
        if options.classifier:
            torch.save(model.state_dict(), options.classifier)
    scenes = all_scenes(held_out=True)
    rng = np.random.default_rng(97)
    renders = [scenes[i] for i in rng.integers(len(scenes), size=600)]
    judged = [scenes[i] for i in np.resize(rng.permutation(len(scenes)), options.pictures)]
    figures = {"classifier on held-out renders": accuracy(model, to_tensor([render(s, rng) for s in renders]), renders)}
    pipeline = StableDiffusionPipeline.from_pretrained(options.base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pictures = generate(pipeline, [caption(s) for s in judged], seed=1000)
    figures[f"{len(judged)} generated, captions never trained on"] = accuracy(model, to_tensor(pictures), judged)
    sheet(pictures[:48], 12).save(options.out / "held_out.png")
    for name, (width, height) in {"wide": (128, 72), "tall": (72, 96)}.items():
        sheet(generate(pipeline, [caption(s) for s in judged[:12]], seed=5, width=width, height=height), 6).save(
            options.out / f"{name}.png"
        )
    (options.out / "figures.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
