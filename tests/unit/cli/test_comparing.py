"""`terroir adapter compare` as people and programs see it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.main import app
from terroir.cli.session import Session

ANSWER = pb.CheckCompatibilityResponse(
    pairs=[
        pb.PairCompatibility(
            first="adapters/ink/versions/3", second="adapters/hotpot/versions/1", interference=0.625,
            delta_cosine=-0.125, input_overlap=0.25, output_overlap=0.5, shared_layers=12, layers=16,
            level=pb.INTERFERENCE_LEVEL_MEDIUM,
        )
    ],
    suggested_weights=[0.75, 0.75],
    level=pb.INTERFERENCE_LEVEL_MEDIUM,
)  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the registry was asked."""
    calls: list[list[str]] = []

    def compatibility(adapters: list[str]) -> pb.CheckCompatibilityResponse:
        calls.append(adapters)
        return ANSWER

    client = SimpleNamespace(registry=SimpleNamespace(compatibility=compatibility))
    monkeypatch.setattr(Session, "client", lambda _: nullcontext(client))
    return calls


def test_people_see_a_row_a_pair_the_weights_and_what_to_do(asked):
    done = CliRunner().invoke(app, ["adapter", "compare", "ink@production", "hotpot"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert asked == [["adapters/ink@production", "adapters/hotpot"]]
    for words in ("ink v3", "0.62 medium", "-0.12", "0.25", "0.50", "12/16"):
        assert words in done.output
    assert "suggested weights: ink@production 0.75, hotpot 0.75" in done.output
    assert "draw samples" in done.output


def test_programs_get_the_whole_answer_as_json(asked):
    done = CliRunner().invoke(app, ["--json", "adapter", "compare", "ink", "hotpot"])
    found = json.loads(done.stdout)
    assert found["level"] == "INTERFERENCE_LEVEL_MEDIUM"
    assert found["pairs"][0]["shared_layers"] == 12
    assert found["suggested_weights"] == [0.75, 0.75]
