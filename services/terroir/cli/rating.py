"""`terroir train rate`: let people look blind, and hear what they say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Final

import typer

from terroir._proto.inference.v1 import inference_pb2
from terroir._proto.training.v1 import rating_pb2 as pb
from terroir.cli.session import Session, resource, session
from terroir.client import Client
from terroir.client.pictures import adapter_weights
from terroir.client.ratings import DrawnPicture, prompts_for, read_answers
from terroir.common.errors import InvalidArgument

app = typer.Typer(
    no_args_is_help=True,
    help="Let people rate blind: a shuffled sheet of real and generated pictures, and their answers back.",
)

_OUTCOMES: Final = {
    pb.RATING_OUTCOME_PENDING: "open", pb.RATING_OUTCOME_PASSED: "passed", pb.RATING_OUTCOME_FAILED: "failed",
}  # fmt: skip
_USUAL: Final = 12
SheetName = Annotated[str, typer.Argument(help="Sheet, such as `sheet-3f2a…`.", show_default=False)]


@app.command()
def sheet(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(help="Job (`jobs/…`) or adapter (`ink`, `ink@staging`, `adapters/ink/versions/2`).")
    ],
    out: Annotated[Path, typer.Option(help="Folder that receives the sheet.")],
    real: Annotated[int, typer.Option(help="Real pictures.", min=1, max=100)] = _USUAL,
    generated: Annotated[int, typer.Option(help="Generated pictures.", min=1, max=100)] = _USUAL,
) -> None:
    """Make a sheet without names: a page for the browser, a form for a spreadsheet, the pictures."""
    this = session(context)
    with this.client() as client:
        name, adapter = _subject(client, subject)
        pictures = _draw(this, client, adapter, generated) if adapter else []
        made = client.ratings.make(name, pictures, real=real, generated=generated)
        files = client.ratings.download(made.name, out)
    this.show(
        made,
        f"{made.name}: {made.picture_count} pictures of {made.side} × {made.side} in {out} ({len(files)} files)",
        f"give people {out / 'sheet.html'}, or {out / 'sheet.csv'} with the pictures",
        "then: terroir train rate take FILE…",
    )


@app.command()
def take(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Saved answers or filled-in forms, one or more people each.")],
) -> None:
    """Bring people's answers; all files are read before any is sent."""
    this = session(context)
    answers = [one for path in files for one in read_answers(path)]
    if len({one.sheet for one in answers}) > 1:
        raise InvalidArgument(
            f"the files are about {len({one.sheet for one in answers})} sheets; take those of one at a time",
            reason="RATINGS_OF_SEVERAL_SHEETS",
        )
    with this.client() as client:
        for one in answers:
            told = client.ratings.submit(one)
            this.say(f"{one.rater}: {len(one.ratings)} answers")
    this.show(told, *_lines(told))


@app.command()
def show(context: typer.Context, name: SheetName) -> None:
    """Show what people said."""
    with session(context).client() as client:
        found = client.ratings.get(resource("ratingSheets", name))
    session(context).show(found, *_lines(found))


@app.command("list")
def list_sheets(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="Job or version; all without one.")] = "",
) -> None:
    """List sheets, newest first."""
    with session(context).client() as client:
        session(context).table(
            client.ratings.list(subject),
            [
                ("sheet", lambda s: s.name), ("about", lambda s: s.subject),
                ("pictures", lambda s: str(s.picture_count)), ("raters", lambda s: str(len(s.raters))),
                ("taken for real", lambda s: _percent(s.scores.fooled) if s.HasField("scores") else ""),
                ("outcome", lambda s: _OUTCOMES.get(s.verdict.outcome, "?")),
            ],
            empty="no sheets; make one: terroir train rate sheet JOB --out FOLDER",
        )  # fmt: skip


def _subject(client: Client, text: str) -> tuple[str, str]:
    """What the sheet is about, and the version to draw with; empty if the job's own pictures are to be shown."""
    if text.startswith("jobs/"):
        job = client.training.get(text)
        return job.name, job.adapter_version
    version = client.registry.version(resource("adapters", text), strong=True).name
    return version, version


def _draw(this: Session, client: Client, adapter: str, count: int) -> list[DrawnPicture]:
    dataset = client.registry.version(adapter).lineage.dataset_version
    captions = [image.caption.text for image in client.datasets.version(dataset).images] if dataset else []
    drawn = []
    with this.progress() as bar:
        for prompt in bar.track(prompts_for(captions, count), description="drawing"):
            seed = random.SystemRandom().randrange(2**31)
            request = inference_pb2.GenerateRequest(
                prompt=prompt, adapters=adapter_weights({adapter: 1.0}), seeds=[seed]
            )
            drawn.append(DrawnPicture(client.pictures.generate(request).pictures[0].data, prompt, seed))
    return drawn


def _lines(found: pb.RatingSheet) -> list[str]:
    lines = [f"{found.name} about {found.subject}: {len(found.raters)} raters, {found.picture_count} pictures"]
    if found.HasField("scores"):
        scores = found.scores
        fooled, brand = _percent(scores.fooled), _percent(scores.on_brand)
        agreements = (("real or generated", scores.agreement), ("on-brand", scores.on_brand_agreement))
        lines += [
            f"generated pictures taken for real: {fooled}; real ones: {_percent(scores.recognised)}",
            f"generated pictures found on-brand: {brand}; real ones: {_percent(scores.real_on_brand)}",
            *(
                f"agreement on {what}: kappa {told.kappa:.2f} ({told.method}, {told.pictures} pictures)"
                for what, told in agreements
                if told.method
            ),
        ]
    return [*lines, f"outcome: {_OUTCOMES.get(found.verdict.outcome, '?')}: {found.verdict.reason}"]


def _percent(share: pb.Share) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
