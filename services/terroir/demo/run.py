"""The whole demo, from two folders of pictures to the contact sheet, with progress on the terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from terroir._proto.training.v1 import training_pb2
from terroir.client import Client, scan_folder
from terroir.common.errors import InvalidArgument
from terroir.demo import contact_sheet, measure, steps
from terroir.demo.plan import PROMPTS, Style, columns
from terroir.embedded import Embedded, ObjectPlace
from terroir.tiny import CLIP_DIR

_JUDGED = {
    "judge_style_gain": "style gain", "judge_prompt_agreement": "prompt agreement", "judge_diversity": "diversity",
    "judge_memorisation": "copies",
}  # fmt: skip


@dataclass(frozen=True)
class DemoFiles:
    """What the demo leaves."""

    png: Path
    html: Path
    figures: Path


def load_styles(examples: Path) -> list[Style]:
    """The two example styles; raises InvalidArgument (EXAMPLES_MISSING)."""
    folders = sorted(path.parent for path in examples.glob("*/style.yaml"))
    if len(folders) < 2:
        raise InvalidArgument(
            f"{examples} holds {len(folders)} style folders, the demo needs two; run it from the checkout "
            "or give --examples",
            reason="EXAMPLES_MISSING",
        )
    return [Style.load(folder) for folder in folders[:2]]


class Demo:
    """One run of the demo into `out`; state lies in `out/data`, so that an interrupted run is continued."""

    def __init__(self, out: Path, examples: Path, console: Console, store: ObjectPlace | None = None) -> None:
        self._out, self._console, self._store = out, console, store
        self._styles = load_styles(examples)
        self._by_adapter = {style.adapter: style for style in self._styles}
        self._columns = columns(*self._styles)
        self._seconds: dict[str, float] = {}

    def run(self) -> DemoFiles:
        """Everything; raises TerroirError with a reason code where a step fails."""
        self._out.mkdir(parents=True, exist_ok=True)
        with (
            Embedded(self._out / "data", store=self._store, on_ready=self._ready) as running,
            Client(running.endpoints) as client,
        ):
            versions = self._datasets(client)
            jobs = self._train(client, versions, running.pids)
            for style in self._styles:
                steps.promote(client, style, jobs[style.adapter].adapter_version)
            with self._timed("load the base model"):
                running.wait_until_serving("inference", 120)
            pictures = self._draw(client)
        with self._timed("measure"):
            figures = measure.measure(CLIP_DIR, pictures, self._columns, self._styles)
        return self._write(pictures, figures, jobs)

    def _ready(self, name: str, seconds: float) -> None:
        self._seconds[f"{name} listens"] = seconds
        self._console.print(f"  {name} listens after {seconds:.1f} s", highlight=False)

    def _datasets(self, client: Client) -> dict[str, str]:
        versions = {}
        with self._timed("datasets"), self._bar() as bar:
            for style in self._styles:
                task = bar.add_task(f"import {style.adapter}", total=len(scan_folder(style.folder)))
                version = steps.make_dataset(client, style, partial(bar.advance, task))
                versions[style.adapter] = version.name
        return versions

    def _train(self, client: Client, versions: dict[str, str], pids: dict[str, int]) -> dict[str, training_pb2.Job]:
        with self._timed("training"), self._bar() as bar:
            tasks: dict[str, TaskID] = {s.adapter: bar.add_task(f"train {s.adapter}", total=None) for s in self._styles}

            def show(style: Style, job: training_pb2.Job) -> None:
                progress = job.progress
                bar.update(
                    tasks[style.adapter],
                    completed=progress.drawn if progress.to_draw else progress.step,
                    total=progress.to_draw or progress.total_steps or None,
                    description=f"train {style.adapter}: {progress.phase or 'queued'}",
                )  # fmt: skip

            jobs = steps.train_both(client, versions, self._styles, show)
        for job in jobs.values():
            chosen = [one for one in job.verdict.checkpoints if one.step == job.verdict.chosen_step]
            figures = ", ".join(
                f"{told} {one.scores[name]:.2f}"
                for one in chosen
                for name, told in _JUDGED.items()
                if name in one.scores
            )
            self._console.print(
                f"  {job.adapter_version} is judged {job.verdict.verdict}, step {job.verdict.chosen_step}: {figures}",
                highlight=False,
            )
            self._console.print(
                f"  {job.adapter_version} trained by Ray worker pid {job.attempt.worker_pid} "
                f"(this process {os.getpid()}, training service {pids['training']})",
                highlight=False,
            )
        return jobs

    def _draw(self, client: Client) -> steps.Pictures:
        with self._timed("pictures"), self._bar() as bar:
            task = bar.add_task("draw", total=len(self._columns) * len(PROMPTS))
            return steps.draw(client, self._columns, self._by_adapter, lambda: bar.advance(task))

    def _write(
        self, pictures: steps.Pictures, figures: list[measure.ColumnFigures], jobs: dict[str, training_pb2.Job]
    ) -> DemoFiles:
        files = DemoFiles(self._out / "contact_sheet.png", self._out / "contact_sheet.html", self._out / "figures.json")
        contact_sheet.write_png(files.png, pictures, self._columns, figures, self._styles)
        contact_sheet.write_html(files.html, pictures, self._columns, figures, self._styles)
        report = {
            "columns": [figure.to_dict() for figure in figures],
            "jobs": {
                adapter: {"job": job.name, "version": job.adapter_version, "worker_pid": job.attempt.worker_pid}
                for adapter, job in jobs.items()
            },
            "seconds": {name: round(value, 1) for name, value in self._seconds.items()},
        }
        files.figures.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return files

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        since = time.monotonic()
        self._console.print(f"{name} …", highlight=False)
        yield
        self._seconds[name] = time.monotonic() - since
        self._console.print(f"  {name}: {self._seconds[name]:.1f} s", highlight=False)
