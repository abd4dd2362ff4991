"""Every alert under promtool: it fires, and does not just below; it has a runbook, and every runbook its alert."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import ROOT
from tests.observability.alert_cases import CASES, Look
from tests.observability.rule_files import RULE_FILES, Rule, rules

RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["What it means", "Impact", "How to look", "How to mend"]
ALERTS = {rule.name: rule for rule in rules() if rule.alert}
Tool = Callable[[str], str]


def promtool(tool: Tool, *arguments: str) -> str:
    told = {**os.environ, "GOGC": "400"}  # a fifth of its time went into collecting garbage
    done = subprocess.run([tool("promtool"), *arguments], env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_to_complain_of(tool: Tool) -> None:
    said = promtool(tool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULE_FILES))
    assert sum(map(int, re.findall(r"(\d+) rules found", said))) == sum(1 for _ in rules())


def test_every_alert_has_looks_that_fire_and_looks_that_do_not() -> None:
    assert set(ALERTS) == set(CASES)
    assert [name for name, looks in CASES.items() if {look.fires for look in looks} != {True, False}] == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name.endswith("Slow") else name for name in sorted(CASES)]
)
def test_fires_and_does_not_fire_just_below(tool: Tool, tmp_path: Path, name: str) -> None:
    files = _needed(ALERTS[name], tmp_path)
    tests = [_test(name, look) for look in CASES[name]]
    written = {"rule_files": files, "evaluation_interval": "1m", "tests": tests}
    if any(look.interval_minutes > 1 for look in CASES[name]):
        written["evaluation_interval"] = "5m"
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    promtool(tool, "test", "rules", str(tmp_path / "test.yaml"))


def _needed(alert: Rule, folder: Path) -> list[str]:
    """The alert alone, with the recording rules that it reads: others only take time.

    Without annotations, because promtool would compare sums of floats in their texts.
    """
    groups = [{"name": "alert", "rules": [{key: value for key, value in alert.stated.items() if key != "annotations"}]}]
    recorded, wanted = {rule.name: rule for rule in rules() if not rule.alert}, [alert.expression]
    for expression in wanted:  # of those that these read too
        read = set(re.findall(r"terroir:\w+:\w+", expression)) & recorded.keys()
        wanted += [recorded.pop(name).expression for name in sorted(read)]
    for path in RULE_FILES if len(wanted) > 1 else ():
        for group in reversed(yaml.safe_load(path.read_text())["groups"]):
            kept = [rule for rule in group["rules"] if "record" in rule and rule["record"] not in recorded]
            if kept:
                groups.insert(0, {**group, "rules": kept})
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}, sort_keys=False))
    return [str(folder / "rules.yaml")]


def _test(name: str, look: Look) -> dict[str, Any]:
    expected = {"exp_labels": {"severity": ALERTS[name].severity, **look.labels}}
    return {
        "name": look.why or f"{name} {'fires' if look.fires else 'is quiet'}",
        "interval": f"{look.interval_minutes}m",
        "input_series": [{"series": series, "values": values} for series, values in look.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{look.at_minutes}m", "alertname": name, "exp_alerts": [expected] if look.fires else []}
        ],
    }


def test_a_wrong_expectation_would_be_noticed(tool: Tool, tmp_path: Path) -> None:
    """The guard itself: the same series, said to be quiet."""
    name = "TerroirIndexStale"
    stated = _test(name, CASES[name][0])
    stated["alert_rule_test"][0]["exp_alerts"] = []
    written = {"rule_files": _needed(ALERTS[name], tmp_path), "evaluation_interval": "1m", "tests": [stated]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(AssertionError, match="FAILED"):
        promtool(tool, "test", "rules", str(tmp_path / "test.yaml"))


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert name.startswith("Terroir") and rule.severity in {"page", "ticket"}
    annotations = rule.stated["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "$" not in annotations["summary"], "a summary is the same for all that fire, so that they group"
    page = RUNBOOKS / f"{name}.md"
    assert annotations["runbook_url"] == f"docs/runbooks/{name}.md"
    assert page.exists(), f"write {page.relative_to(ROOT)}"
    text = page.read_text()
    assert text.startswith(f"# {name}\n") and f"**{rule.severity}**" in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS


def test_every_runbook_has_its_alert_and_the_list_names_all() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")}
    assert pages - {"README"} == set(ALERTS)
    listed = re.findall(r"\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text())
    assert sorted(listed) == sorted(ALERTS)


def test_burn_rates_are_those_of_the_books() -> None:
    """14.4, 6, 3 and 1 times the budget that slo.yaml states, each over its two windows."""
    text = (ROOT / "charts" / "terroir" / "rules" / "slo.yaml").read_text()
    stated = dict(re.findall(r"^#   (\w+) +at most ([\d.]+) %", text, re.MULTILINE))
    windows = {"14.4": ("1h", "5m"), "6": ("6h", "30m"), "3": ("1d", "2h"), "1": ("3d", "6h")}
    pattern = r"terroir:(\w+):ratio_rate(\w+) > ([\d.]+) \* ([\d.]+)"
    found = Counter(
        (indicator, rate, window, round(100 * float(budget), 6))
        for rule in ALERTS.values()
        for indicator, window, rate, budget in re.findall(pattern, rule.expression)
    )
    wanted = Counter(
        (indicator, rate, window, float(percent))
        for indicator, percent in stated.items()
        for rate, pair in windows.items()
        for window in pair
    )
    assert len(stated) == 5 and found == wanted


def test_recording_rules_are_used() -> None:
    """What is recorded for nobody is computed for nothing."""
    recorded = {rule.name for rule in rules() if not rule.alert}
    used = set(re.findall(r"terroir:\w+:\w+", " ".join(rule.expression for rule in rules())))
    assert recorded == used
