"""A real Airflow for tests, in an environment of its own: a fresh home on SQLite, and calls of its command.

Its environment is `.venv-airflow` of the repository, or the one whose command AIRFLOW_BIN names. Nothing is read from,
or written to, a home of Airflow's that is there already; no example is loaded, and no usage data is sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs import REPOSITORY

AIRFLOW = Path(os.environ.get("AIRFLOW_BIN", REPOSITORY / ".venv-airflow/bin/airflow"))
"""The command `airflow`; tests that need it are skipped where it is absent."""
CALL_SECONDS = 280.0
"""Generous: no call of a test that passes takes half as long."""


@dataclasses.dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a task of a run ended: its state, and at which attempt."""

    state: str
    tries: int


@dataclasses.dataclass(frozen=True, slots=True)
class AirflowHome:
    """A home of Airflow's in a folder, with the DAGs of this repository."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> AirflowHome:
        """Make a home with an empty database, which takes some seconds."""
        home = cls(folder)
        folder.mkdir(parents=True)
        home.call("db", "migrate")
        return home

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a call; `more` comes last. Retries follow at once."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
        own = {
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        return {**kept, **own, **(more or {})}

    def call(
        self, *words: str, more: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Call `airflow WORDS` and return how it ended."""
        return subprocess.run(
            [str(AIRFLOW), *words],
            env=self.environment(more), cwd=cwd or self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=CALL_SECONDS, check=False,
        )  # fmt: skip

    def run_dag(self, dag: str, params: Mapping[str, Any], more: Mapping[str, str] | None = None) -> str:
        """Run a DAG to its end by `airflow dags test` and return what was logged, whatever the end was."""
        return self.call("dags", "test", dag, "-c", json.dumps(params), more=more).stdout

    def ends(self, dag: str) -> dict[str, TaskEnd]:
        """Return how the tasks of a DAG's latest run ended, by task id (with "[K]" where it is mapped)."""
        query = (
            "select task_id, map_index, state, try_number from task_instance where run_id ="
            " (select run_id from dag_run where dag_id = ? order by id desc limit 1)"
        )
        with contextlib.closing(sqlite3.connect(self.folder / "airflow.db")) as database:
            rows = database.execute(query, (dag,)).fetchall()
        return {task if index < 0 else f"{task}[{index}]": TaskEnd(state, tries) for task, index, state, tries in rows}
