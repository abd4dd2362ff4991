"""`terroir region`, `terroir recipe`, presets and samples against a running registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from terroir.cli.main import app
from terroir.common.errors import TerroirError
from tests.contract.registry.running import Running
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.test_samples import encoded

FILE = """\
recipes:
  - {id: tea, adapters: [jiangnan=0.8]}
regions:
  - {code: CN-ZJ, parent: x-jiangnan}
  - {code: x-jiangnan, parent: CN, saved_recipe: tea}
  - {code: CN, adapters: [jiangnan=0.5], seasons: [{id: spring, from_date: 01-20, to_date: 02-20, saved_recipe: tea}]}
  - {code: XX, parent: YY}
  - {code: JP, colour: red}
"""


class Shell:
    """Types commands; `said` is standard output."""

    def __init__(self, running: Running) -> None:
        self.running = running

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output; raises what the command line would print as an error."""
        result = CliRunner().invoke(app, list(arguments))
        if isinstance(result.exception, TerroirError):
            raise result.exception
        return result.exit_code, result.stdout

    def said(self, *arguments: str) -> str:
        """Output of a command that works."""
        status, output = self.run(*arguments)
        assert status == 0, output
        return output


@pytest.fixture
def shell(registry: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    """A command line that finds a registry with one adapter."""
    services = ("dataset", "training", "registry", "inference")
    monkeypatch.setenv("TERROIR_ENDPOINTS", ",".join(f"{name}=127.0.0.1:{registry.port}" for name in services))
    monkeypatch.chdir(tmp_path)
    registry.publish("adapters/jiangnan", adapter_bytes(rank=1))
    Path("regions.yaml").write_text(FILE)
    with capture_logs():  # the server logs to the standard output that the commands have here
        yield Shell(registry)


def test_a_file_is_brought_in_parents_first_with_a_verdict_a_line(shell: Shell) -> None:
    status, output = shell.run("region", "import", "regions.yaml")
    assert status == 1
    verdicts = dict(line.removeprefix("regions.yaml:").split(": ", 1) for line in output.splitlines() if ": " in line)
    assert {line: verdict.split(" [")[0] for line, verdict in verdicts.items()} == {
        "2": "recipes/tea put",
        "4": "regions/CN-ZJ put",
        "5": "regions/x-jiangnan put",
        "6": "regions/CN put",
        "7": "regions/XX refused",
        "8": "regions/JP refused",
    }
    assert "REGION_NOT_FOUND" in verdicts["7"]
    assert output.splitlines()[-1] == "4 put, 2 refused"
    status, again = shell.run("--json", "region", "import", "regions.yaml")
    assert (status, [entry["verdict"] for entry in json.loads(again)].count("put")) == (1, 4)


def test_the_tree_is_drawn_and_told(shell: Shell) -> None:
    shell.run("region", "import", "regions.yaml")
    assert [line.rstrip() for line in shell.said("region", "tree").splitlines()] == [
        "CN  jiangnan=0.5 and 1 season",
        "└── x-jiangnan  recipes/tea",
        "    └── CN-ZJ  (inherits)",
    ]
    (root,) = json.loads(shell.said("--json", "region", "tree"))
    assert root["children"][0]["children"][0]["region"]["name"] == "regions/CN-ZJ"


def test_seasons_are_set_replaced_and_removed_and_putting_a_region_keeps_them(shell: Shell) -> None:
    shell.run("region", "import", "regions.yaml")
    shell.said("region", "season", "set", "CN", "sale", "--campaign", "sale", "--adapter", "jiangnan=1", "--first")
    shell.said("region", "season", "set", "cn", "spring", "--from", "01-01", "--to", "02-20", "--recipe", "tea")
    shell.said("region", "put", "cn", "--adapter", "jiangnan=0.1")
    listed = json.loads(shell.said("--json", "region", "season", "list", "CN"))
    assert [(season["id"], season.get("from_date")) for season in listed] == [("sale", None), ("spring", "01-01")]
    assert "jiangnan=1 from" in shell.said("region", "resolve", "CN", "--campaign", "sale").replace("adapters/", "")
    assert "season spring by recipes/tea" in shell.said("region", "resolve", "CN", "--date", "2027-01-01")
    assert "from regions/x-jiangnan by recipes/tea" in shell.said("region", "resolve", "330106")
    shell.said("region", "season", "remove", "CN", "spring")
    with pytest.raises(TerroirError) as refused:
        shell.run("region", "season", "remove", "CN", "spring")
    assert refused.value.reason == "SEASON_NOT_FOUND"
    assert "season sale (always, campaign sale): jiangnan=1" in shell.said("region", "get", "CN")


def test_recipes_are_put_shown_listed_and_removed(shell: Shell) -> None:
    shell.said("recipe", "put", "tea", "--adapter", "jiangnan=0.8", "--prefix", "tea house,", "--negative", "photo")
    assert "negative prompt: photo" in shell.said("recipe", "show", "tea")
    assert [recipe["name"] for recipe in json.loads(shell.said("--json", "recipe", "list"))] == ["recipes/tea"]
    shell.said("region", "put", "CN", "--recipe", "tea")
    with pytest.raises(TerroirError) as refused:
        shell.run("recipe", "delete", "tea")
    assert refused.value.reason == "RECIPE_IN_USE"
    assert json.loads(shell.said("--json", "region", "delete", "CN")) == {"deleted": "regions/CN"}
    assert shell.said("recipe", "delete", "tea") == "recipes/tea is removed\n"
    assert "no saved recipes" in shell.said("recipe", "list")
    assert "no regions" in shell.said("region", "list")
    assert "no regions" in shell.said("region", "tree")


def test_presets_are_set_replaced_and_removed(shell: Shell) -> None:
    shell.said("adapter", "preset", "set", "jiangnan", "Ink", "--trigger", "jnsty", "--weight", "0.8")
    shell.said("adapter", "preset", "set", "jiangnan", "Bold", "--prompt", "jnsty, {prompt}", "--first")
    shell.said("adapter", "preset", "set", "jiangnan", "Ink", "--weight", "0.7", "--negative", "photo")
    listed = json.loads(shell.said("--json", "adapter", "preset", "list", "jiangnan"))
    assert [(preset["display_name"], preset["weight"]) for preset in listed] == [("Bold", 1.0), ("Ink", 0.7)]
    assert "2 presets" not in shell.said("adapter", "preset", "remove", "jiangnan", "Bold")
    with pytest.raises(TerroirError) as refused:
        shell.run("adapter", "preset", "remove", "jiangnan", "Bold")
    assert refused.value.reason == "PRESET_NOT_FOUND"


def test_samples_are_kept_listed_and_written_byte_by_byte(shell: Shell) -> None:
    picture = encoded("PNG")
    Path("boat.png").write_bytes(picture)
    Path("sea.png").write_bytes(bytes(9 * 1024 * 1024))
    shell.said("adapter", "sample", "add", "jiangnan", "boat.png", "--caption", "a boat", "--version", "1")
    (sample,) = json.loads(shell.said("--json", "adapter", "sample", "list", "jiangnan"))
    assert sample["version"] == "adapters/jiangnan/versions/1"
    shell.said("adapter", "sample", "save", "jiangnan", sample["digest"][:8])
    assert Path(f"{sample['digest'][:12]}.png").read_bytes() == picture
    for arguments, reason in (
        (("save", "jiangnan", "0000000"), "SAMPLE_NOT_FOUND"),
        (("add", "jiangnan", "x.png"), "FILE_MISSING"),
        (("add", "jiangnan", "sea.png"), "SAMPLE_TOO_LARGE"),
    ):
        with pytest.raises(TerroirError) as refused:
            shell.run("adapter", "sample", *arguments)
        assert refused.value.reason == reason
