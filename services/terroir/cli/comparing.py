"""`terroir adapter compare`: will these styles stack?"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.session import resource, session

_LEVELS: Final = {
    pb.INTERFERENCE_LEVEL_LOW: "low",
    pb.INTERFERENCE_LEVEL_MEDIUM: "medium",
    pb.INTERFERENCE_LEVEL_HIGH: "high",
}
_ADVICE: Final = {
    pb.INTERFERENCE_LEVEL_LOW: "both styles of every pair are likely to stay visible; samples tell for certain",
    pb.INTERFERENCE_LEVEL_MEDIUM: "one style may cover another: draw samples before you publish the stack",
    pb.INTERFERENCE_LEVEL_HIGH: "expect a style to be lost: favour one by its weight, or choose another pair",
}


def compare(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER ADAPTER",
            help="2 to 8 of one base: `jiangnan` (newest), `jiangnan@production` or `jiangnan/versions/3`.",
            show_default=False,
        ),
    ],
) -> None:
    """Say how well adapters stack, pair by pair, and at which weights.

    interference: share of the worse-off style that is expected to be lost at 0.7 + 0.7, and the verdict on it; cosine:
    of the two changes; reads, writes: overlap of what they respond to and of what they produce, 0 is chance; layers:
    changed by both, of those that one of them changes. More in docs/compatibility.md.
    """
    here = session(context)
    with here.client() as client, here.progress() as bar:
        bar.add_task("comparing", total=None)
        found = client.registry.compatibility([resource("adapters", name) for name in names])
    if here.as_json:
        here.show(found)
        return
    here.table(
        found.pairs,
        [
            ("first", lambda p: _short(p.first)), ("second", lambda p: _short(p.second)),
            ("interference", lambda p: f"{p.interference:.2f} {_LEVELS.get(p.level, '?')}"),
            ("cosine", lambda p: f"{p.delta_cosine:+.2f}"),
            ("reads", lambda p: f"{p.input_overlap:.2f}"),
            ("writes", lambda p: f"{p.output_overlap:.2f}"),
            ("layers", lambda p: f"{p.shared_layers}/{p.layers}"),
        ],
        empty="no pairs",
    )  # fmt: skip
    weights = zip(names, found.suggested_weights, strict=True)
    here.say("suggested weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in weights))
    here.say(_ADVICE.get(found.level, "this command is older than the registry's answer; update it"))


def _short(name: str) -> str:
    return name.removeprefix("adapters/").replace("/versions/", " v")
