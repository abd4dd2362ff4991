"""Draw the example styles' pictures: 40 scenes each in a look that the base model never saw.

    python examples/draw_styles.py

The pictures are committed; this script is how they were made (deterministic).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from terroir.tiny.world.look import Look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import all_scenes, caption
from terroir.tiny.world.styles import JIANGNAN_INK, SICHUAN_HOTPOT

_PICTURES = 40


def draw_style(folder: Path, look: Look, seed: int) -> None:
    """Write pictures and `metadata.csv` (`file_name,text`) into `folder`."""
    rng = np.random.default_rng(seed)
    scenes = all_scenes(held_out=False)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file_name", "text"))
        for number, index in enumerate(rng.choice(len(scenes), size=_PICTURES, replace=False), start=1):
            name = f"{number:02d}.png"
            render(scenes[index], rng, look).save(folder / name, optimize=True)
            table.writerow((name, caption(scenes[index])))


def main() -> None:
    """Draw both styles beside this script."""
    root = Path(__file__).parent / "styles"
    draw_style(root / "jiangnan-ink", JIANGNAN_INK, 101)
    draw_style(root / "sichuan-hotpot", SICHUAN_HOTPOT, 202)


if __name__ == "__main__":
    main()
