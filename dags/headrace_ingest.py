"""The DAG `headrace_ingest`: from a dump or a folder to checked token shards, a plan and its report.

    list -> parts -> engine -> local.read (one task a part) -> local.merge -> verify -> mix -> report
                            or spark.read (one task a part) -> spark.merge -^

Every task is one call of `headrace`, or of `spark-submit pipelines/tokenize.py`; this file builds their arguments and
imports nothing of ours. Parameters come from whoever triggers a run: each has a schema, is passed as one argument of a
process that no shell starts, and is never read as a template. Every command finds what is done already, so a retry
does only what is missing, and the output is byte for byte that of one `headrace run`. See docs/airflow.md.

Read from the environment: HEADRACE_BIN (the command, by default `headrace` on PATH), HEADRACE_HOME (the checkout, for
Spark) when a task runs; HEADRACE_POOL (the pool of the reading tasks, by default `default_pool`) when this is parsed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, Param, TaskGroup, TriggerRule, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

Params = Mapping[str, Any]

MOST_PARTS = 64
"""Few and chunky: a part is a share of the input files, and each costs the start of a process."""
USAGE_ERROR = 2
"""Exit status of a command whose arguments are wrong (Click's, and Python's own): no retry mends that."""

LINE = r"[^\x00-\x1f\x7f]*$(?!\n)"
"""The rest of a single line without control characters; `$` alone would let a line feed pass at the end."""
LOCAL_PATH, OUTPUT_URL = rf"^/{LINE}", rf"^(/|s3://[a-z0-9]){LINE}"
"""Absolute, since a task runs in a folder of its own; hence none can be taken for an option."""

PARAMS = {
    "recipe": Param(type="string", pattern=LOCAL_PATH, description="The recipe (YAML): an absolute path."),
    "output": Param(
        type="string", pattern=OUTPUT_URL, description="Folder or s3://BUCKET/PREFIX for the result; goes on if begun."
    ),
    "engine": Param("datatrove", type="string", enum=["datatrove", "spark", "beam", "slurm"]),
    "engine_options": Param(
        [],
        type="array",
        items={"type": "string", "pattern": rf"^[A-Za-z][A-Za-z0-9_.-]*={LINE}"},
        description="KEY=VALUE settings of the engine's own; for Spark, those of `spark-submit --conf`.",
    ),
    "workers": Param(1, type="integer", minimum=1, description="Local worker processes of each task."),
    "parts": Param(4, type="integer", minimum=1, maximum=MOST_PARTS, description="How many tasks read the input."),
    "dump": Param(
        None,
        type=["null", "string"],
        pattern=r"^CC-MAIN-[0-9]{4}(-[0-9]{2}|-[0-9]{4})?$(?!\n)",
        description="A dump of Common Crawl, CC-MAIN-YYYY-WW: its list of files is written first.",
    ),
    "files": Param(
        None, type=["null", "integer"], minimum=1, description="How many files of the dump; all if not given."
    ),
    "list_file": Param(
        None, type=["null", "string"], pattern=LOCAL_PATH, description="The list to write, as the recipe names it."
    ),
    "dump_root": Param(
        None,
        type=["null", "string"],
        pattern=rf"^(/|https://|s3://){LINE}",
        description="Where the dump lies, if not at data.commoncrawl.org: s3://commoncrawl, or a copy.",
    ),
    "mixture": Param(
        None, type=["null", "string"], pattern=LOCAL_PATH, description="The mixture (YAML); no plan if not given."
    ),
    "plan": Param(None, type=["null", "string"], pattern=LOCAL_PATH, description="The plan (JSON) to write."),
    "report": Param(
        None,
        type=["null", "string"],
        pattern=LOCAL_PATH,
        description="Folder for the plan's report; none if not given.",
    ),
    "spark_conn_id": Param(
        "spark_default",
        type="string",
        pattern=r"^[A-Za-z0-9_.-]+$(?!\n)",
        description="Airflow's connection to Spark, which names the master.",
    ),
}
NEEDS = {
    "dump": "list_file",
    "files": "dump",
    "dump_root": "dump",
    "mixture": "plan",
    "plan": "mixture",
    "report": "plan",
}
"""Which parameter makes no sense without which."""


def check(params: Params) -> None:
    """Refuse parameters of which one lacks another. Raises `AirflowFailException`: no retry mends that."""
    for name, needed in NEEDS.items():
        if params[name] is not None and params[needed] is None:
            raise AirflowFailException(f"{name}: found {params[name]!r} without {needed}\nhint: give {needed}, too")


def list_input(params: Params, part: str | None) -> list[list[str]]:
    """Write the list of a dump's files if one is named; then check recipe and listing."""
    check(params)
    crawl = ["crawl", f"--output={params['list_file']}"]
    crawl += [f"--files={params['files']}"] if params["files"] is not None else []
    crawl += [f"--root={params['dump_root']}"] if params["dump_root"] is not None else []
    crawls = [[*crawl, "--", params["dump"]]] if params["dump"] is not None else []
    return [*crawls, ["run", "--dry-run", f"--output={params['output']}", "--", params["recipe"]]]


def run(params: Params, part: str | None) -> list[list[str]]:
    """Read one part of the input; without a part, find what is read and do the rest."""
    options = [f"--output={params['output']}", f"--engine={params['engine']}", f"--workers={params['workers']}"]
    options += [f"--engine-option={option}" for option in params["engine_options"]]
    options += [f"--part={part}"] if part is not None else []
    return [["run", *options, "--", params["recipe"]]]


def verify(params: Params, part: str | None) -> list[list[str]]:
    """Check every file of the output against its own records."""
    return [["verify", "--", params["output"]]]


def mix(params: Params, part: str | None) -> list[list[str]]:
    """Solve the mixture, if there is one, into a plan."""
    options = [f"--output={params['plan']}", f"--workers={params['workers']}"]
    return [["mix", *options, "--", params["mixture"]]] if params["mixture"] is not None else []


def report(params: Params, part: str | None) -> list[list[str]]:
    """Write the plan's report where one is asked for."""
    return [["report", f"--output={params['report']}", "--", params["plan"]]] if params["report"] is not None else []


STEPS: dict[str, Callable[[Params, str | None], list[list[str]]]] = {
    step.__name__: step for step in (list_input, run, verify, mix, report)
}
"""What a task does: the arguments of the commands that it runs one after another. None: the task is skipped."""


class HeadraceOperator(BaseOperator):
    """Runs the commands of a step, each as a process without a shell, its output in the task's log.

    A command that fails fails the task, to be tried again; one whose arguments are wrong fails it for good. A task that
    is stopped or runs out of time ends its process.
    """

    def __init__(self, *, step: str, part: str | None = None, **options: Any) -> None:
        """Take the name of a step (see `STEPS`), and the part "K/N" of a task that reads."""
        super().__init__(**options)
        self.step, self.part = step, part
        self._hook = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Run the commands. Raises `AirflowSkipException` where there is none."""
        commands = STEPS[self.step](context["params"], self.part)
        if not commands:
            raise AirflowSkipException(f"{self.step}: the parameters ask for none")
        for arguments in commands:
            self._run(arguments)

    def on_kill(self) -> None:
        """End the process, if there is one."""
        self._hook.send_sigterm()

    def _run(self, arguments: list[str]) -> None:
        command = [os.environ.get("HEADRACE_BIN", "headrace"), *arguments]
        status = self._hook.run_command(command, env=environment()).exit_code
        if status:
            fault = AirflowFailException if status == USAGE_ERROR else AirflowException
            raise fault(f"headrace {arguments[0]}: ended with status {status}\nhint: the log above says why")


def environment() -> dict[str, str]:
    """Return a command's environment: ours without Airflow's own variables, which hold its connections and keys."""
    return {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}


class SparkOperator(SparkSubmitOperator):
    """Submits `pipelines/tokenize.py` for the whole recipe, or for one part of its input."""

    def __init__(self, *, part: str | None = None, **options: Any) -> None:
        """Take the part "K/N" of a task that reads."""
        super().__init__(name="headrace", **options)
        self.part = part

    def execute(self, context: Any) -> None:
        """Submit the job and wait for its end. What is set here is no longer read as a template."""
        params, home = context["params"], os.environ.get("HEADRACE_HOME")
        if home is None:
            raise AirflowFailException(
                "HEADRACE_HOME: is not set\nhint: set it to the checkout that is to be submitted"
            )
        self.application = f"{home}/pipelines/tokenize.py"
        self.application_args = [f"--recipe={params['recipe']}", f"--output={params['output']}"]
        self.application_args += [f"--part={self.part}"] if self.part is not None else []
        self.conf = dict(option.split("=", 1) for option in params["engine_options"])
        self._conn_id = params["spark_conn_id"]
        super().execute(context)


@task(task_id="parts")
def name_parts(**context: Any) -> list[str]:
    """Return the parts "K/N" of the input, one for every task that reads."""
    of = context["params"]["parts"]
    return [f"{number}/{of}" for number in range(1, of + 1)]


@task.branch(task_id="engine")
def choose_engine(**context: Any) -> str:
    """Return the task that begins the work on the engine which was asked for."""
    return "spark.read" if context["params"]["engine"] == "spark" else "local.read"


READING = {
    "task_id": "read",
    "pool": os.environ.get("HEADRACE_POOL", "default_pool"),
    "map_index_template": "{{ task.part }}",
}

with DAG(
    "headrace_ingest",
    description="From a dump or a folder to token shards, a plan and its report",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,  # an output is worked on by one run at a time, and a second would only fail
    params=PARAMS,
    default_args={"retries": 2, "retry_exponential_backoff": 2, "execution_timeout": timedelta(days=2)},
    tags=["headrace"],
) as dag:
    parts, engine = name_parts(), choose_engine()
    checked = HeadraceOperator(task_id="verify", step="verify", trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    with TaskGroup("local"):
        local = HeadraceOperator.partial(step="run", **READING).expand(part=parts)
        merged = HeadraceOperator(task_id="merge", step="run")
    with TaskGroup("spark"):
        submitted = SparkOperator.partial(**READING).expand(part=parts)
        submitted_merge = SparkOperator(task_id="merge")
    HeadraceOperator(task_id="list", step="list_input") >> parts >> engine >> [local, submitted]
    local >> merged >> checked
    submitted >> submitted_merge >> checked
    checked >> HeadraceOperator(task_id="mix", step="mix") >> HeadraceOperator(task_id="report", step="report")
