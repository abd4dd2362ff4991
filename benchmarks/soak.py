"""Run heavy tests at the counts that the issues name: `python -m benchmarks.soak [--only NAME] [--list]`.

The same tests run in `make test` at a reduced count; here each is told its full count by an environment variable. What
passed on this commit is not run again, so an interrupted soak goes on where it stopped. Results, with the commit that
they were seen on, are kept in benchmarks/results/soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = CHECKOUT / "benchmarks" / "results" / "soak.json"


@dataclass(frozen=True)
class Soak:
    """A heavy test and its full count."""

    name: str
    about: str
    test: str
    """What pytest is given."""
    variable: str
    count: int


SOAKS: Final = (
    Soak(
        "races", "16 writers race for the next version and for one alias, rounds",
        "tests/integration/registry/test_racing_writers.py", "TERROIR_SOAK_ROUNDS", 1000,
    ),
    Soak(
        "kills", "a replica killed in the middle of PublishVersion, moments",
        "tests/integration/registry/test_killed_replica.py", "TERROIR_SOAK_KILLS", 30,
    ),
    Soak(
        "fuzz", "mutated adapter files read, files",
        "tests/robustness/lora/test_fuzzed_files.py", "TERROIR_SOAK_FUZZ", 10_000,
    ),
    Soak(
        "churn", "requests join and leave the drawing loop in random stacks, joins",
        "tests/unit/inference/test_engine_churn.py", "TERROIR_SOAK_CHURN", 1000,
    ),
    Soak(
        "ghz", "64 clients of ghz at an inference server, seconds",
        "tests/integration/inference/test_many_clients.py", "TERROIR_SOAK_GHZ_SECONDS", 300,
    ),
    Soak(
        "rolling", "requests while every inference replica is replaced again and again, requests",
        "tests/integration/inference/test_rolling_restart.py", "TERROIR_SOAK_ROLLING_REQUESTS", 1000,
    ),
    Soak(
        "chart", "value sets drawn from the chart's schema",
        "tests/chart/test_chart_generated_values.py", "TERROIR_CHART_EXAMPLES", 300,
    ),
    Soak(
        "training-kills", "a training run killed at steps, epochs' edges, inside writes; its weights stay, kills",
        "tests/robustness/training/test_killed_training.py", "TERROIR_SOAK_TRAINING_KILLS", 50,
    ),
    Soak(
        "queued-jobs", "jobs handed in at once through two replicas, jobs",
        "tests/unit/training/test_jobs_at_once.py", "TERROIR_SOAK_QUEUED_JOBS", 1000,
    ),
    Soak(
        "resumes", "training runs with random options killed at random passes, runs",
        "tests/unit/training/test_exact_resume.py", "TERROIR_SOAK_RESUMES", 50,
    ),
    Soak(
        "worker-group", "a worker of a group killed, times",
        "tests/integration/training/test_worker_group.py", "TERROIR_SOAK_GROUP_KILLS", 1,
    ),
    Soak(
        "separation", "a healthy run passes its judgement, one of four pictures is refused for copies, steps of it",
        "tests/robustness/training/test_judged_separation.py", "TERROIR_SOAK_SEPARATION_STEPS", 2000,
    ),
    Soak(
        "training-outage", "MinIO gone in the middle of a training attempt, which waits for it, seconds",
        "tests/integration/training/test_store_outage.py", "TERROIR_SOAK_OUTAGE_SECONDS", 30,
    ),
    Soak(
        "rpc-fuzz", "random bytes and random fields at every method, of each a method",
        "tests/robustness/rpc/test_rpc_fuzz.py", "TERROIR_SOAK_RPC_FUZZ", 500,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a soak ended."""

    name: str
    about: str
    count: int
    passed: bool
    seconds: float
    commit: str
    """With `+` if the tree had uncommitted changes."""
    finished_at: str
    """RFC 3339, UTC."""
    command: str


def main() -> int:
    """Command line; exit status 1 if a soak failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=[soak.name for soak in SOAKS], help="one of them")
    parser.add_argument("--list", action="store_true", help="list them")
    options = parser.parse_args()
    if options.list:
        for soak in SOAKS:
            print(f"{soak.name:15} {soak.count:>6}  {soak.about}")
        return 0
    kept = _load()
    commit = _commit()
    failed = False
    for soak in SOAKS:
        if options.only not in (None, soak.name):
            continue
        before = kept.get(soak.name)
        if before is not None and before.passed and before.commit == commit and before.count == soak.count:
            print(f"{soak.name}: passed on {commit[:12]} at {before.finished_at}, not run again", flush=True)
            continue
        print(f"{soak.name}: {soak.about}: {soak.count}", flush=True)
        outcome = _run(soak, commit)
        kept[soak.name] = outcome
        _save(kept)
        print(f"{soak.name}: {'passed' if outcome.passed else 'FAILED'} after {outcome.seconds:.0f} s", flush=True)
        failed = failed or not outcome.passed
    return 1 if failed else 0


def _run(soak: Soak, commit: str) -> Outcome:
    since = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", soak.test]
    status = subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, soak.variable: str(soak.count)}, check=False
    ).returncode
    return Outcome(
        name=soak.name, about=soak.about, count=soak.count, passed=status == 0,
        seconds=round(time.monotonic() - since, 1), commit=commit,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=f"{soak.variable}={soak.count} python -m pytest {soak.test}",
    )  # fmt: skip


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "services", "tests", "proto")
    return git("rev-parse", "HEAD") + ("+" if changed else "")


def _load() -> dict[str, Outcome]:
    if not RESULTS.exists():
        return {}
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {row["name"]: Outcome(**row) for row in rows}


def _save(outcomes: dict[str, Outcome]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(outcomes[soak.name]) for soak in SOAKS if soak.name in outcomes]
    partial = RESULTS.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    partial.replace(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
