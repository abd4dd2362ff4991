"""`terroir adapter publish | alias | rollback | deprecate | audit` against a running registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from terroir.common.errors import InvalidArgument, NotFound
from tests.contract.registry.running import BASE, Running
from tests.contract.registry.test_region_commands import Shell
from tests.unit.registry.adapter_kit import adapter_bytes


@pytest.fixture
def shell(registry: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    """A command line that finds a registry, in a folder with three adapter files."""
    services = ("dataset", "training", "registry", "inference")
    monkeypatch.setenv("TERROIR_ENDPOINTS", ",".join(f"{name}=127.0.0.1:{registry.port}" for name in services))
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        Path(f"{number}.safetensors").write_bytes(adapter_bytes(rank=1, seed=number))
    with capture_logs():  # the server logs to the standard output that the commands have here
        yield Shell(registry)


def publish(shell: Shell, number: int, *options: str) -> str:
    base = BASE.removeprefix("bases/")
    return shell.said("adapter", "publish", "ink", f"{number}.safetensors", "--base", base, *options)


def test_what_is_said_at_publishing_is_shown_and_found(shell: Shell) -> None:
    said = publish(
        shell, 1, "--trigger", "ink style", "--tag", "garden", "--tag", "ink", "--region", "CN-ZJ",
        "--metric", "style_similarity=0.71", "--description", "水墨",
    )  # fmt: skip
    assert said.startswith("published adapters/ink/versions/1: 3 layers, 0 keys left out")
    shown = json.loads(shell.said("--json", "adapter", "show", "ink"))
    assert (shown["tags"], shown["region"]) == (["garden", "ink"], "regions/CN-ZJ")
    assert (shown["metrics"], shown["description"]) == ({"style_similarity": 0.71}, "水墨")
    assert shown["hashes"]["autov2"] == shown["file_digest"][:10]
    assert "adapters/ink" in shell.said("adapter", "list", "--tag", "garden", "--metric", "style_similarity>=0.7")
    found = json.loads(shell.said("--json", "adapter", "find", shown["hashes"]["autov3"]))
    assert [version["name"] for version in found] == ["adapters/ink/versions/1"]


def test_an_alias_moves_on_trial_back_and_away(shell: Shell) -> None:
    for number in (1, 2, 3):
        publish(shell, number)
    assert "→ adapters/ink/versions/1" in shell.said("adapter", "alias", "ink", "production", "1", "--reason", "first")
    on_trial = shell.said("adapter", "alias", "ink", "production", "2", "--canary", "3=5", "--reason", "warmer")
    assert "5 % get adapters/ink/versions/3" in on_trial
    assert "→ adapters/ink/versions/1" in shell.said("adapter", "rollback", "ink", "production", "--reason", "too warm")
    assert "deprecated" in shell.said("adapter", "deprecate", "ink/versions/2", "--reason", "too warm")
    assert "in use again" in shell.said("adapter", "deprecate", "ink/versions/2", "--undo", "--reason", "not so bad")
    assert "removed" in shell.said("adapter", "unalias", "ink", "production", "--reason", "no longer used")
    told = json.loads(shell.said("--json", "adapter", "audit", "ink"))
    assert [event["action"] for event in told] == [
        "delete_alias", "reinstate", "deprecate", "rollback_alias", "set_alias", "set_alias", "publish", "publish",
        "publish",
    ]  # fmt: skip


def test_what_is_typed_wrong_is_named(shell: Shell) -> None:
    publish(shell, 1)
    wrong = [
        (("adapter", "alias", "ink", "production", "1", "--canary", "x", "--reason", "r"), "INVALID_CANARY"),
        (("adapter", "publish", "ink", "1.safetensors", "--metric", "x"), "INVALID_METRIC"),
        (("adapter", "publish", "ink", "none.safetensors"), "FILE_MISSING"),
        (("adapter", "publish", "ink", "1.safetensors", "--base", BASE[6:], "--tag", "Not A Tag"), "INVALID_NAME"),
        (("adapter", "rollback", "ink", "none", "--reason", "r"), "ALIAS_NOT_FOUND"),
    ]
    for arguments, reason in wrong:
        with pytest.raises((InvalidArgument, NotFound)) as caught:
            shell.run(*arguments)
        assert caught.value.reason == reason
