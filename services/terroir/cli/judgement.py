"""`terroir train verdict` and `terroir train report`: what a job's judgement found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.cli.session import Session, resource, session

JobName = Annotated[str, typer.Argument(help="Job, such as `jobs/3f2a…`.", show_default=False)]
_FIGURES: Final = (
    ("style", "judge_style_gain", "min_style_gain"),
    ("agreement", "judge_prompt_agreement", "min_prompt_agreement"),
    ("diversity", "judge_diversity", "min_diversity"),
    ("copies", "judge_memorisation", "max_memorisation"),
)


def verdict(context: typer.Context, name: JobName) -> None:
    """Show what the judgement of a job found: figures by checkpoint, and its pictures' closest training pictures."""
    this = session(context)
    with this.client() as client:
        found = client.training.verdict(resource("jobs", name))
    if this.as_json:
        this.show(found)
        return
    chosen = f"step {found.chosen_step} is published" if found.chosen_step else "nothing is published"
    this.say(f"{found.verdict}: {chosen} ({found.pictures} pictures, {found.seconds:.0f} s)")
    this.console.print(_checkpoints(found))
    if found.left_out_steps:
        this.say(f"not looked at, as later ones are better: {', '.join(map(str, found.left_out_steps))}")
    for line in found.advice:
        this.say(f"try: {line}")
    _say_nearest(this, found)
    this.say(f"with pictures: terroir train report {name} --out report.html")


def report(
    context: typer.Context,
    name: JobName,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write a job's curves, samples, verdict and evidence as one HTML file."""
    this = session(context)
    with this.client() as client:
        page = client.training.report(resource("jobs", name))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(page)
    this.done({"file": str(out), "bytes": len(page)}, f"wrote {out} ({len(page) / 1e6:.1f} MB)")


def _checkpoints(found: pb.JobVerdict) -> Table:
    heads = [f"{head} {'≤' if key.startswith('max') else '≥'} {found.bounds[key]:g}" for head, _, key in _FIGURES]
    table = Table("step", "verdict", *heads, "pictures compared", box=None, pad_edge=False)
    for one in found.checkpoints:
        marked = f"{one.step} *" if one.step == found.chosen_step else str(one.step)
        if one.broken:
            table.add_row(marked, one.verdict, one.broken)
            continue
        cells = [f"{one.scores[score]:.2f}{' !' if key in one.missed else ''}" for _, score, key in _FIGURES]
        table.add_row(marked, one.verdict, *cells, f"{one.scores['judge_recalled']:.0f}")
    return table


def _say_nearest(this: Session, found: pb.JobVerdict) -> None:
    told = next((one for one in found.checkpoints if one.step == found.chosen_step), None) or found.checkpoints[-1]
    this.say(f"closest to training pictures, step {told.step}:")
    for near in told.nearest:
        this.say(
            f"  {'copy' if near.is_copy else 'near'}  pixels {near.pixels:.2f}  embedding {near.embedding:.2f}  "
            f"{near.training_picture}  {near.prompt} (seed {near.seed})"
        )
