"""From a folder of pictures to a cover in that style, by the commands that people type."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.command_line import ROOT, CommandLine, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STYLE = ROOT / "examples" / "styles" / "jiangnan-ink"
PICTURES = 12
PROMPT = "ink style, a red teapot at sunset"
TOLERANCE = 2
"""Of 255, between the service's pictures and those of diffusers."""
CONFIG = """
dataset: datasets/ink
base_model: terroir-tiny
lora_rank: 4
batch_size: 4
max_train_steps: 20
learning_rate: 1.0e-2
save_steps: 10
seed: 7
"""


@dataclass(frozen=True)
class Story:
    """What the commands left behind."""

    terroir: CommandLine
    folder: Path
    before: Path
    job: dict[str, Any]
    after: dict[str, Any]

    def draw(self, *options: str, name: str) -> Path:
        """The picture of one generate command, with seed 7 in 8 steps."""
        out = self.folder / name
        answer = self.terroir.json(
            "generate", PROMPT, "--seed", "7", "--steps", "8", "--guidance", "3", "--out", str(out), *options
        )
        assert answer["files"] == [str(out / "7.png")]
        return out / "7.png"


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    """`[height, width, 3]` of a PNG."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), np.int16)


def difference(one: Path, other: Path) -> int:
    """Largest difference of two pictures, of 255."""
    return int(np.abs(pixels(one) - pixels(other)).max())


@pytest.fixture(scope="module")
def story(terroir: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The whole job, up to a published adapter and a picture with it; nothing is restarted in between."""
    folder = tmp_path_factory.mktemp("story")
    pictures = folder / "pictures"
    pictures.mkdir()
    for path in [*sorted(STYLE.glob("*.png"))[:PICTURES], STYLE / "metadata.csv"]:
        shutil.copy(path, pictures)
    (folder / "ink.yaml").write_text(CONFIG)
    told = Story(terroir, folder, Path(), {}, {})
    before = told.draw(name="before")
    terroir.run("dataset", "create", "ink", "--trigger", "ink style", "--rights", "drawn by this project")
    imported = terroir.json("dataset", "import", "ink", str(pictures))
    again = terroir.json("dataset", "import", "ink", str(pictures))
    assert (imported["imported"], imported["already_present"]) == (PICTURES, 0)
    assert (again["imported"], again["already_present"]) == (PICTURES, PICTURES)
    version = terroir.json("dataset", "freeze", "ink")
    assert (version["name"], int(version["image_count"])) == ("datasets/ink/versions/1", PICTURES)
    job = terroir.json("train", "submit", str(folder / "ink.yaml"), "--adapter", "ink")
    published = terroir.json("adapter", "show", "ink")
    return Story(terroir, folder, before, job, published)


def test_a_job_trains_in_a_ray_worker_and_publishes_what_it_learned(story: Story) -> None:
    assert story.job["state"] == "JOB_STATE_SUCCEEDED"
    assert story.job["adapter_version"] == story.after["name"] == "adapters/ink/versions/1"
    assert story.job["dataset_version"] == "datasets/ink/versions/1"
    assert int(story.job["progress"]["step"]) == int(story.job["progress"]["total_steps"]) == 20
    assert int(story.job["attempt"]["worker_pid"]) not in {0, *story.terroir.pids.values()}
    assert story.after["lineage"]["job"] == story.job["name"]
    checkpoints = story.terroir.json("train", "checkpoints", story.job["name"])
    assert [int(c["name"].rsplit("/", 1)[1]) for c in checkpoints] == [20, 10]


def test_the_file_of_a_run_without_a_server_is_submitted_as_it_is_and_flags_overrule_it(story: Story) -> None:
    """Folders in the file are relative to the file, as in a run without a server."""
    (story.folder / "local.yaml").write_text(
        "train_data_dir: pictures\nadapter: ink-again\noutput_dir: out\ntrigger_word: ink style\n"
        "lora_rank: 2\nbatch_size: 2\nmax_train_steps: 500\nmixed_precision: no\n"
    )
    told = ("--max-train-steps", "2", "--network_dim", "3", "--rights", "drawn by this project")
    job = story.terroir.json("train", "submit", str(story.folder / "local.yaml"), *told)
    assert job["state"] == "JOB_STATE_SUCCEEDED" and int(job["progress"]["step"]) == 2
    assert (job["dataset_version"], job["adapter_version"]) == (
        "datasets/ink-again/versions/1",
        "adapters/ink-again/versions/1",
    )
    kept = yaml.safe_load(story.terroir.run("train", "show", job["name"], "--config").stdout)
    assert (kept["lora_rank"], kept["mixed_precision"], kept["train_data_dir"]) == (3, "no", "")


def test_an_adapter_published_while_everything_runs_is_used_by_the_next_picture(story: Story) -> None:
    styled = story.draw("--adapter", "ink", name="styled")
    assert pixels(styled).shape == (64, 64, 3)
    assert difference(story.before, styled) > 4 * TOLERANCE
    assert difference(story.before, story.draw("--adapter", "ink=0", name="nothing")) == 0
    assert difference(styled, story.draw("--adapter", "ink", name="again")) == 0


def test_a_recommender_draws_in_the_style_of_the_readers_region(story: Story) -> None:
    story.terroir.run("adapter", "alias", "ink", "production", "1", "--reason", "first one")
    story.terroir.run("region", "put", "CN-ZJ", "--adapter", "ink@production=0.8", "--prefix", "ink style")
    covers = {}
    for region in ("CN-ZJ", ""):
        cover = story.folder / f"cover{region}.png"
        subprocess.run(
            [sys.executable, str(ROOT / "examples" / "recommender.py"), region, "a red teapot at sunset", str(cover)],
            env=environment({"TERROIR_DATA_DIR": str(story.terroir.data_dir)}),
            check=True,
            timeout=120,
        )
        covers[region] = cover
    assert pixels(covers["CN-ZJ"]).shape == (64, 64, 3)
    assert difference(covers["CN-ZJ"], covers[""]) > 4 * TOLERANCE


def test_the_downloaded_kohya_file_draws_the_same_pictures_in_diffusers(story: Story, base_dir: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    file = story.folder / "ink.safetensors"
    story.terroir.run("adapter", "download", "ink", "--out", str(file))
    pipe = StableDiffusionPipeline.from_pretrained(base_dir, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name="ink")
    pipe.set_adapters(["ink"], [0.8])
    made = pipe(
        PROMPT, width=64, height=64, num_inference_steps=8, guidance_scale=3.0,
        generator=torch.Generator("cpu").manual_seed(7), output_type="np",
    )  # fmt: skip
    theirs = (made.images[0] * 255).round().astype(np.int16)
    ours = pixels(story.draw("--adapter", "ink=0.8", name="oracle"))
    assert theirs.std() > 1, "the oracle's picture is flat, so agreement would prove nothing"
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_what_does_not_exist_is_one_readable_line_with_its_reason(story: Story) -> None:
    missing = story.terroir.run("generate", PROMPT, "--adapter", "nobody", status=1)
    assert missing.stderr.startswith("error [ADAPTER_NOT_FOUND] ")
    assert missing.stderr.count("\n") == 1
    slow = story.terroir.run("generate", PROMPT, "--deadline", "0.001", status=1)
    # The server refuses it at once, unless the time is up before the call gets there.
    assert "[DEADLINE_UNMEETABLE]" in slow.stderr or "[DEADLINE_EXCEEDED]" in slow.stderr
