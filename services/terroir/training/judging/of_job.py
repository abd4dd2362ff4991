"""The judgement of a job's attempt: with what raters said, and what a version carries of both."""

from __future__ import annotations

from collections.abc import Mapping

from terroir.common.clock import Clock
from terroir.store.interface import ObjectStore
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.attempt.order import DriverOrder
from terroir.training.engine.ports import Sinks, TrainResult
from terroir.training.judging.choosing import Kept, People, choose
from terroir.training.judging.kept import KeptJudgements, png
from terroir.training.judging.run import JudgedRun
from terroir.training.rating.keeping import KeptDrawings
from terroir.training.rating.model import Drawn
from terroir.training.rating.people import people_metrics, people_on
from terroir.training.rating.sheets import Sheets


def choose_for_job(
    order: DriverOrder, store: ObjectStore, result: TrainResult, run: JudgedRun, sinks: Sinks, clock: Clock
) -> tuple[TrainResult, Mapping[str, float]]:
    """What is published, with the figures of the judgement and of people, if there are any; raises as `choose`."""
    prefix, sheets, drawings = f"jobs/{order.job_id}", Sheets(store, clock), KeptDrawings(store)
    people = People(
        scores=lambda: people_on(sheets, order.job_id),
        keep=lambda drawn: drawings.keep(order.job_id, [Drawn(png(one), of.prompt, of.seed) for of, one in drawn]),
    )
    kept = Kept(Checkpoints(store, prefix, clock), KeptJudgements(store, prefix, clock), f"attempt/{order.attempt}")
    chosen, judgement = choose(result, run, kept, sinks, clock, people)
    machine = judgement.chosen.scores if judgement and judgement.chosen else None
    said = people_metrics(sheets, order.job_id) if run.config.rating_gate else {}
    return chosen, {**(machine.metrics() if machine else {}), **said}
