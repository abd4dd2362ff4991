"""`terroir adapter list`, `find` and `watch` against a running registry."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.main import app
from terroir.client import Client, Endpoints
from terroir.common.errors import InvalidArgument, TerroirError
from tests.contract.registry.running import Running
from tests.unit.registry.adapter_kit import adapter_bytes


@pytest.fixture
def stocked(registry: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A registry with two adapters, which the command line finds."""
    services = ("dataset", "training", "registry", "inference")
    monkeypatch.setenv("TERROIR_ENDPOINTS", ",".join(f"{name}=127.0.0.1:{registry.port}" for name in services))
    registry.publish("adapters/jiangnan", adapter_bytes(rank=1), tags=["ink"], metrics={"style_similarity": 0.8})
    registry.publish("adapters/hotpot", adapter_bytes(rank=2), region="regions/510100")
    with capture_logs():  # the server logs to the standard output that the commands have here
        yield registry


def said(*arguments: str) -> str:
    """Output of a command; raises what the command line would print as an error."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if isinstance(result.exception, TerroirError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["hotpot", "jiangnan"]),
        (("POT",), ["hotpot"]),
        (("--tag", "ink"), ["jiangnan"]),
        (("--region", "CN-SC"), ["hotpot"]),
        (("--metric", "style_similarity>=0.5", "--metric", "style_similarity<=0.9"), ["jiangnan"]),
        (("--since", "2020-01-01", "--until", "2020-02-01T00:00:00+08:00"), []),
        (("--alias", "production", "--deprecated"), []),
    ],
)
def test_options_narrow_the_list(stocked: Running, options: tuple[str, ...], expected: list[str]) -> None:
    found = json.loads(said("--json", "adapter", "list", *options))
    assert [each["name"] for each in found] == [f"adapters/{name}" for name in expected]


def test_an_empty_search_says_what_to_try(stocked: Running) -> None:
    assert "fewer options" in said("adapter", "list", "--tag", "oil")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--since", "yesterday"), "INVALID_TIME"),
        (("--metric", "loss=1"), "INVALID_METRIC_BOUND"),
        (("--tag", "Ink!"), "INVALID_TAG"),
        (("--region", "no region"), "INVALID_NAME"),
    ],
)
def test_a_bad_option_is_named(stocked: Running, options: tuple[str, ...], reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        said("adapter", "list", *options)
    assert caught.value.reason == reason


def test_a_file_is_found_by_the_beginning_of_its_digest(stocked: Running) -> None:
    version = stocked.api.GetVersion(pb.GetVersionRequest(name="adapters/jiangnan"))
    assert "jiangnan/versions/1" in said("adapter", "find", version.file_digest[:10])
    assert "nobody published" in said("adapter", "find", "00000000")


def test_a_watch_goes_on_from_a_token_and_ends_after_so_many(stocked: Running) -> None:
    with Client(Endpoints.discover(None)) as client:
        begin = next(iter(client.registry.watch()))
    stocked.publish("adapters/jiangnan", adapter_bytes(rank=3))
    stocked.set_alias("staging", 2)
    lines = said("--json", "adapter", "watch", "--resume", begin.resume_token, "--count", "2").splitlines()
    told = [json.loads(line) for line in lines]
    assert [each["change"]["kind"] for each in told] == ["CHANGE_KIND_VERSION_PUBLISHED", "CHANGE_KIND_ALIASES_CHANGED"]
    shown = said("adapter", "watch", "--resume", begin.resume_token, "--count", "1")
    assert "version published adapters/jiangnan/versions/2" in shown
