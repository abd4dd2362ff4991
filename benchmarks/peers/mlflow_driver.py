"""Runs in MLflow's environment: reads operations as JSON lines, answers with the seconds that each took."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import sqlalchemy
from mlflow.tracking import MlflowClient


class Driver:
    """One client on one SQLite database."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = f"sqlite:///{folder / 'mlflow.db'}"
        mlflow.set_tracking_uri(self._database)
        mlflow.set_registry_uri(self._database)
        self._client = MlflowClient()
        experiment = self._client.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
        self._run = self._client.create_run(experiment).info
        self._known: set[str] = set()

    def seed(self, models: int) -> float:
        """Straight into its tables: through its API this takes hours."""
        began = time.perf_counter()
        engine = sqlalchemy.create_engine(self._database)
        names = [f"seeded-{number:06d}" for number in range(models)]
        now = int(time.time() * 1000)
        tables = sqlalchemy.MetaData()
        tables.reflect(engine, only=["registered_models", "model_versions", "registered_model_aliases"])
        with engine.begin() as connection:
            connection.execute(
                tables.tables["registered_models"].insert(),
                [{"name": name, "creation_time": now, "last_updated_time": now} for name in names],
            )
            connection.execute(
                tables.tables["model_versions"].insert(),
                [
                    {
                        "name": name, "version": 1, "creation_time": now, "last_updated_time": now,
                        "current_stage": "None", "source": "seeded", "status": "READY",
                    }
                    for name in names
                ],
            )  # fmt: skip
            connection.execute(
                tables.tables["registered_model_aliases"].insert(),
                [{"name": name, "alias": "production", "version": 1} for name in names],
            )
        return time.perf_counter() - began

    def publish(self, model: str, file: str) -> float:
        """The file becomes an artifact, then a version."""
        if model not in self._known:
            self._client.create_registered_model(model)
            self._known.add(model)
        began = time.perf_counter()
        self._client.log_artifact(self._run.run_id, file, f"adapters/{Path(file).stem}")
        source = f"{self._run.artifact_uri}/adapters/{Path(file).stem}"
        self._client.create_model_version(model, source, self._run.run_id)
        return time.perf_counter() - began

    def set_alias(self, model: str, alias: str) -> float:
        """Point it at version 1."""
        began = time.perf_counter()
        self._client.set_registered_model_alias(model, alias, "1")
        return time.perf_counter() - began

    def by_alias(self, model: str, alias: str) -> float:
        """The version behind an alias."""
        began = time.perf_counter()
        self._client.get_model_version_by_alias(model, alias)
        return time.perf_counter() - began

    def page(self, size: int) -> float:
        """First page of all models."""
        began = time.perf_counter()
        found = self._client.search_registered_models(max_results=size)
        if len(found) != size:
            raise RuntimeError(f"{len(found)} models on a page of {size}")
        return time.perf_counter() - began


def main() -> None:
    """Serve until the input ends."""
    driver = Driver(Path(sys.argv[1]))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        answer = getattr(driver, request.pop("operation"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
