"""The DAG as it is read: what it imports, which parameters it takes, which commands its tasks run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow_home import AIRFLOW, AirflowHome
from runs import REPOSITORY

SOURCE = REPOSITORY / "dags/headrace_ingest.py"
NEEDS_AIRFLOW = pytest.mark.skipif(not AIRFLOW.exists(), reason="there is no .venv-airflow: make airflow")

PROBE = """
import importlib.util, json, sys
import airflow.sdk
asked = json.load(sys.stdin)
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("headrace_ingest", asked["source"])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
gained = sorted({name.partition(".")[0] for name in set(sys.modules) - before})

from copy import deepcopy
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError

dag = module.dag

def answer(given):
    try:
        params = deepcopy(dag.params)
        params.update(given)
        params = params.validate()
        module.check(params)
    except (ParamValidationError, AirflowFailException) as error:
        return {"refused": str(error)}
    return {name: step(params, "2/3" if name == "run" else None) for name, step in module.STEPS.items()}

tasks = {
    task.task_id: {"upstream": sorted(task.upstream_task_ids), "mapped": task.is_mapped, "retries": task.retries,
                   "backoff": task.retry_exponential_backoff, "days": task.execution_timeout.days, "pool": task.pool}
    for task in dag.tasks
}
print("\\n" + json.dumps({"gained": gained, "answers": [answer(given) for given in asked["params"]], "tasks": tasks,
                          "runs": dag.max_active_runs, "schedule": dag.schedule}))
"""
"""Reads the DAG in Airflow's own Python, and tells what that imported, how it is built, and what parameters come to."""

GIVEN = {"recipe": "/a/recipe.yaml", "output": "/a/out"}
HOSTILE = "/a/; touch x $(touch x) `touch x` {{ 7*7 }} --part=1/1 'x' \"x\""
ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, list[list[str]]]]] = {
    "the least": (
        GIVEN,
        {
            "list_input": [["run", "--dry-run", "--output=/a/out", "--", "/a/recipe.yaml"]],
            "run": [
                ["run", "--output=/a/out", "--engine=datatrove", "--workers=1", "--part=2/3", "--", "/a/recipe.yaml"]
            ],
            "verify": [["verify", "--", "/a/out"]],
            "mix": [],
            "report": [],
        },
    ),
    "all": (
        {
            "recipe": HOSTILE, "output": "s3://bucket/prefix", "engine": "beam", "engine_options": ["a.b=c=;d", "e="],
            "workers": 3, "dump": "CC-MAIN-2024-22", "files": 8, "list_file": "/a/list", "dump_root": "s3://commoncrawl",
            "mixture": HOSTILE, "plan": "/a/plan.json", "report": "/a/report",
        },
        {
            "list_input": [
                ["crawl", "--output=/a/list", "--files=8", "--root=s3://commoncrawl", "--", "CC-MAIN-2024-22"],
                ["run", "--dry-run", "--output=s3://bucket/prefix", "--", HOSTILE],
            ],
            "run": [
                [
                    "run", "--output=s3://bucket/prefix", "--engine=beam", "--workers=3", "--engine-option=a.b=c=;d",
                    "--engine-option=e=", "--part=2/3", "--", HOSTILE,
                ]
            ],
            "verify": [["verify", "--", "s3://bucket/prefix"]],
            "mix": [["mix", "--output=/a/plan.json", "--workers=3", "--", HOSTILE]],
            "report": [["report", "--output=/a/report", "--", "/a/plan.json"]],
        },
    ),
}  # fmt: skip
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"recipe": "recipe.yaml"}, "does not match"),
    ({"recipe": "--help"}, "does not match"),
    ({"recipe": ""}, "does not match"),
    ({"recipe": "/a\nb"}, "does not match"),
    ({"recipe": "/a\n"}, "does not match"),
    ({"recipe": "/a\x00b"}, "does not match"),
    ({"recipe": None}, "is not of type 'string'"),
    ({"recipe": ["/a"]}, "is not of type 'string'"),
    ({"output": "http://a/b"}, "does not match"),
    ({"output": "s3://-a"}, "does not match"),
    ({"engine": "flink"}, "is not one of"),
    ({"engine_options": "a=b"}, "is not of type 'array'"),
    ({"engine_options": ["a"]}, "does not match"),
    ({"engine_options": ["--part=1/1"]}, "does not match"),
    ({"engine_options": ["a=b\nc"]}, "does not match"),
    ({"engine_options": [7]}, "is not of type 'string'"),
    ({"workers": 0}, "less than the minimum"),
    ({"workers": "2"}, "is not of type 'integer'"),
    ({"parts": 0}, "less than the minimum"),
    ({"parts": 65}, "greater than the maximum"),
    ({"parts": 1.5}, "is not of type 'integer'"),
    ({"dump": "CC-MAIN-2024-22; touch x", "list_file": "/a"}, "does not match"),
    ({"dump": "CC-MAIN-2024-22\n", "list_file": "/a"}, "does not match"),
    ({"dump": "../../etc", "list_file": "/a"}, "does not match"),
    ({"dump": "CC-MAIN-２０２４-22", "list_file": "/a"}, "does not match"),
    ({"dump": "CC-MAIN-2024-221", "list_file": "/a"}, "does not match"),
    ({"dump_root": "file:///etc"}, "does not match"),
    ({"spark_conn_id": "a b"}, "does not match"),
    ({"dump": "CC-MAIN-2024-22"}, "dump: found 'CC-MAIN-2024-22' without list_file\nhint: give list_file, too"),
    ({"files": 3}, "files: found 3 without dump\nhint: give dump, too"),
    ({"mixture": "/a"}, "mixture: found '/a' without plan\nhint: give plan, too"),
    ({"plan": "/a"}, "plan: found '/a' without mixture\nhint: give mixture, too"),
    ({"report": "/a"}, "report: found '/a' without plan\nhint: give plan, too"),
]


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> dict[str, Any]:
    """What the probe tells, in one process for all tests."""
    given = [params for params, _ in ACCEPTED.values()] + [GIVEN | params for params, _ in REFUSED]
    home = AirflowHome(tmp_path_factory.mktemp("airflow"))
    return json.loads(probe(home, PROBE, {"source": str(SOURCE), "params": given}).splitlines()[-1])


def probe(home: AirflowHome, script: str, asked: object, **more: str) -> str:
    """Run a script in Airflow's own Python and return what it printed."""
    done = subprocess.run(
        [str(AIRFLOW.parent / "python"), "-c", script],
        env=home.environment(more), cwd=home.folder, input=json.dumps(asked),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_imports_airflow_and_the_standard_library_only_and_opens_no_file():
    tree = ast.parse(SOURCE.read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - set(sys.stdlib_module_names) == {"airflow"}
    called = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"open", "read_text", "read_bytes", "glob", "iterdir", "listdir", "import_module", "__import__"}
    assert not called & {"system", "popen", "Popen"}, "no shell, and no process but the hook's"


@NEEDS_AIRFLOW
def test_reading_it_loads_nothing_heavy(read):
    heavy = {"pyspark", "pyarrow", "torch", "numba", "numpy", "pandas", "tokenizer", "mixtures", "trainer_bridge"}
    assert not heavy & set(read["gained"])
    assert "pipelines" not in read["gained"]


@NEEDS_AIRFLOW
@pytest.mark.parametrize("number", range(len(ACCEPTED)), ids=list(ACCEPTED))
def test_parameters_become_arguments_of_their_own(read, number):
    assert read["answers"][number] == list(ACCEPTED.values())[number][1]


@NEEDS_AIRFLOW
@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[json.dumps(params) for params, _ in REFUSED])
def test_parameters_that_are_refused(read, number):
    answer = read["answers"][len(ACCEPTED) + number]
    assert REFUSED[number][1] in answer.get("refused", f"accepted: {answer}")


@NEEDS_AIRFLOW
def test_the_graph(read):
    upstream = {name: task["upstream"] for name, task in read["tasks"].items()}
    assert upstream == {
        "list": [],
        "parts": ["list"],
        "engine": ["parts"],
        "local.read": ["engine", "parts"],
        "local.merge": ["local.read"],
        "spark.read": ["engine", "parts"],
        "spark.merge": ["spark.read"],
        "verify": ["local.merge", "spark.merge"],
        "mix": ["verify"],
        "report": ["mix"],
    }
    assert {name for name, task in read["tasks"].items() if task["mapped"]} == {"local.read", "spark.read"}
    for task in read["tasks"].values():
        assert (task["retries"], task["backoff"], task["days"]) == (2, 2, 2)
    assert (read["runs"], read["schedule"]) == (1, None)


@NEEDS_AIRFLOW
def test_reading_tasks_are_in_the_pool_that_the_environment_names(tmp_path):
    asked = {"source": str(SOURCE), "params": []}
    tasks = json.loads(probe(AirflowHome(tmp_path), PROBE, asked, HEADRACE_POOL="readers").splitlines()[-1])["tasks"]
    assert {name for name, task in tasks.items() if task["pool"] == "readers"} == {"local.read", "spark.read"}


FAILING = """
import importlib.util, json, sys, threading, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("headrace_ingest", json.load(sys.stdin))
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
params = {"output": "/a/out"}
for kind in ("ends with 1", "ends with 2", "is stopped"):
    Path("kind").write_text(kind)
    operator = module.HeadraceOperator(task_id="verify", step="verify")
    if kind == "is stopped":
        def stop():
            while not Path("pid").exists():
                time.sleep(0.01)
            operator.on_kill()
        threading.Thread(target=stop).start()
    try:
        operator._run(["verify"])
    except module.AirflowException as error:
        print("told", json.dumps([type(error).__name__, str(error)]))
"""
COMMAND = """#!/bin/sh
cd "$(dirname "$0")"
case "$(cat kind)" in
  *1) exit 1 ;;
  *2) exit 2 ;;
  *) sleep 300 & echo $! > pid.new; mv pid.new pid; wait ;;
esac
"""


@NEEDS_AIRFLOW
def test_a_command_that_fails_is_tried_again_unless_its_arguments_are_wrong_and_one_that_is_stopped_ends(tmp_path):
    command = tmp_path / "command"
    command.write_text(COMMAND)
    command.chmod(0o755)
    output = probe(AirflowHome(tmp_path), FAILING, str(SOURCE), HEADRACE_BIN=str(command))
    told = [json.loads(line.removeprefix("told ")) for line in output.splitlines() if line.startswith("told ")]
    hint = "hint: the log above says why"
    assert told == [
        ["AirflowException", f"headrace verify: ended with status 1\n{hint}"],
        ["AirflowFailException", f"headrace verify: ended with status 2\n{hint}"],
        ["AirflowException", f"headrace verify: ended with status -15\n{hint}"],
    ]
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()
    state = (child / "stat").read_text().rpartition(") ")[2][0] if child.exists() else "gone"
    assert state in ("gone", "Z"), "the command's own children end with it"
