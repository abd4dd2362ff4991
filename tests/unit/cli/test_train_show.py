"""`terroir train show --config` prints a job's whole configuration, which can be run again as it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.cli.main import app
from terroir.cli.session import Session
from terroir.training.config import TrainConfig
from terroir.training.config.parser import dump_config, parse_config


class Answering:
    """Stands for a client whose training service knows one job."""

    def __init__(self, job: pb.Job) -> None:
        self.training = SimpleNamespace(get=lambda name: job)

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_configuration_alone_is_printed_and_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(dataset="datasets/ink/versions/1", target_modules=["to_q"], sample_prompts=["[a] hill"])
    job = pb.Job(name="jobs/one", config_yaml=dump_config(config))
    monkeypatch.setattr(Session, "client", lambda _: Answering(job))
    printed = CliRunner().invoke(app, ["train", "show", "one", "--config"]).stdout
    assert parse_config(printed).config == config
    whole = CliRunner().invoke(app, ["train", "show", "one"]).stdout
    assert "jobs/one" in whole and printed.strip() in whole
