"""Name what the tiny base drew by eye, before the answer is known: numbered sheets in random order, then a comparison.

Every subject is drawn equally often, from captions that training never saw. Write down one name a picture, in order,
one a line (`?` where nothing can be named), and only then let them be compared with the key.

    python -m terroir.tiny.training.blind --base build/tiny/base --out build/tiny/blind
    python -m terroir.tiny.training.blind --out build/tiny/blind --answers answers.txt
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from terroir.tiny.training.judge import generate
from terroir.tiny.world.scene import SUBJECTS, Scene, all_scenes, caption

_SCALE: Final = 3
_COLUMNS: Final = 8
_A_SHEET: Final = 48
_MARGIN: Final = 12


def choose(each: int, seed: int) -> list[Scene]:
    """`each` held-out scenes of every subject, in random order."""
    rng = np.random.default_rng(seed)
    chosen: list[Scene] = []
    for subject in SUBJECTS:
        own = [scene for scene in all_scenes(held_out=True) if scene.subject == subject]
        chosen += [own[i] for i in rng.choice(len(own), size=each, replace=each > len(own))]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def numbered(pictures: list[Image.Image], first: int) -> Image.Image:
    """A sheet of square pictures, enlarged, with nothing but their numbers beneath."""
    side = pictures[0].width * _SCALE
    rows = -(-len(pictures) // _COLUMNS)
    page = Image.new("RGB", (_COLUMNS * (side + 4), rows * (side + _MARGIN)), "white")
    pen = ImageDraw.Draw(page)
    for index, picture in enumerate(pictures):
        x, y = index % _COLUMNS * (side + 4), index // _COLUMNS * (side + _MARGIN)
        page.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, y))
        pen.text((x + side // 2, y + side), str(first + index), fill="black")
    return page


def compare(key: list[str], answers: list[str]) -> dict[str, dict[str, object]]:
    """By subject: how many were drawn, how many were named right, and what the others were taken for.

    Raises ValueError if the answers are not one a picture or name something that the world does not have.
    """
    if len(answers) != len(key):
        raise ValueError(f"{len(answers)} answers for {len(key)} pictures; write one a line, ? where none fits")
    if unknown := set(answers) - {*SUBJECTS, "?"}:
        raise ValueError(f"not subjects: {sorted(unknown)}; the subjects are {', '.join(SUBJECTS)}, or ?")
    table: dict[str, dict[str, object]] = {}
    for subject in SUBJECTS:
        given = [answer for answer, truth in zip(answers, key, strict=True) if truth == subject]
        wrong = Counter(answer for answer in given if answer != subject)
        table[subject] = {"drawn": len(given), "right": given.count(subject), "taken for": dict(wrong)}
    return table


def main() -> None:
    """Command line of the test by eye."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="diffusers folder to draw with")
    parser.add_argument("--out", type=Path, required=True, help="folder of sheets and key")
    parser.add_argument("--each", type=int, default=8, help="pictures a subject")
    parser.add_argument("--seed", type=int, default=1, help="of scenes, order and noise")
    parser.add_argument("--answers", type=Path, help="names given by eye, to compare with the key")
    options = parser.parse_args()
    key = options.out / "key.json"
    if options.answers:
        answers = options.answers.read_text(encoding="utf-8").split("\n")
        table = compare(json.loads(key.read_text()), [line.strip() for line in answers if line.strip()])
        (options.out / "eye.json").write_text(json.dumps(table, indent=2))
        print(json.dumps(table, indent=2))
        return
    if not options.base:
        parser.error("--base is needed to draw")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scenes = choose(options.each, options.seed)
    pipeline = StableDiffusionPipeline.from_pretrained(options.base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pictures = generate(pipeline, [caption(scene) for scene in scenes], seed=options.seed * 10_000)
    key.write_text(json.dumps([scene.subject for scene in scenes]))
    for start in range(0, len(pictures), _A_SHEET):
        page = numbered(pictures[start : start + _A_SHEET], start + 1)
        page.save(options.out / f"sheet-{start // _A_SHEET + 1}.png")


if __name__ == "__main__":
    main()
