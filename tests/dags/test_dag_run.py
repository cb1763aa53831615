"""The DAG run for real by `airflow dags test`: same bytes as by hand, tasks that are killed, hostile parameters."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow_home import AIRFLOW, AirflowHome, TaskEnd
from click.testing import CliRunner
from made import made_recipe, write_archive
from runs import REPOSITORY
from spark_cluster import SMALL, spark_environment
from trees import tree_hashes

from headrace import main

pytestmark = pytest.mark.skipif(not AIRFLOW.exists(), reason="there is no .venv-airflow: make airflow")

DAG = "headrace_ingest"
DUMP = "CC-MAIN-2024-22"
ARCHIVES = tuple(f"crawl-data/{DUMP}/segments/1/warc/{number:05d}.warc" for number in range(3))
MIXTURE = """
name: made
seed: 1
classes: {text: {epochs: 2}, code: {epochs: 4}, instructions: {epochs: 1, cut: never}}
sources:
  web: {class: text, manifests: [out/tokens/web/language=en/manifest.json]}
  code: {class: code, manifests: [out/tokens/code/language=_/manifest.json]}
  talks: {class: instructions, manifests: [out/tokens/talks/language=en/manifest.json]}
phases: [{length: 512, global_batch: 2}]
"""
HOSTILE = """a b; touch "$CANARY" & $(touch "$CANARY") `touch "$CANARY"` {{ 7*7 }} {% raw %} 'x' "y" | *"""
"""A folder's name that no shell and no template may read."""

HEADRACE = """#!{python}
# The command line as it is, but it notes each call in NOTES; and with KILLED set, the first call that reads part 1/2
# and the first that does the rest are killed after a commit of their own.
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {repository!r})
from headrace import main
from pipelines.storage.local import LocalStorage

notes, words, commit = Path(os.environ["NOTES"]), sys.argv[1:], LocalStorage.commit
leaked = [name for name in os.environ if "AIRFLOW" in name]
with (notes / "calls").open("a") as calls:
    calls.write(json.dumps({{"words": words, "leaked": leaked}}) + "\\n")
if words[0] == "run" and "--dry-run" not in words and not any(word.startswith("--part=2/") for word in words):
    stage, mark = ("1-read", "part") if "--part=1/2" in words else ("2-identify", "rest")

    def dying(self, path, record):
        done = commit(self, path, record)
        if path.startswith(f"stages/{{stage}}/commits/") and not (notes / mark).exists() and "KILLED" in os.environ:
            (notes / mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    LocalStorage.commit = dying
main()
"""


def made_work(folder: Path) -> Path:
    """Make a folder with a recipe (its archives are a dump's), its input and a mixture of what comes out; return it."""
    recipe = made_recipe(folder)
    web = 'root: input\n    include: ["*.warc"]'
    assert web in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(web, 'root: crawl\n    files: list.txt\n    include: ["**"]'))
    for path in ARCHIVES:
        (folder / "crawl" / path).parent.mkdir(parents=True, exist_ok=True)
        write_archive(folder / "crawl" / path)
    listing = folder / f"crawl/crawl-data/{DUMP}/warc.paths.gz"
    listing.write_bytes(gzip.compress("".join(f"{path}\n" for path in ARCHIVES).encode()))
    (folder / "mixture.yaml").write_text(MIXTURE)
    return folder


def params_of(work: Path, **more: Any) -> dict[str, Any]:
    """Return the parameters of a run in a folder that `made_work` made."""
    dump = {"dump": DUMP, "files": 2, "dump_root": str(work / "crawl"), "list_file": str(work / "list.txt")}
    return {"recipe": str(work / "made.yaml"), "output": str(work / "out"), "parts": 2} | dump | more


def noting_headrace(folder: Path) -> dict[str, str]:
    """Write the command that notes its calls into a folder; return the environment in which tasks use it."""
    command = folder / "headrace"
    command.write_text(HEADRACE.format(python=sys.executable, repository=str(REPOSITORY)))
    command.chmod(0o755)
    return {"HEADRACE_BIN": str(command), "NOTES": str(folder), "CANARY": str(folder / "canary")}


def calls(notes: Path) -> list[dict[str, Any]]:
    """Return the calls of the command, in order."""
    return [json.loads(line) for line in (notes / "calls").read_text().splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return AirflowHome.make(tmp_path_factory.mktemp("airflow") / "home")


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> Path:
    """The folder of a run without Airflow: the commands as typed, one process, no parts."""
    work = made_work(tmp_path_factory.mktemp("hand"))
    for words in (
        ["crawl", DUMP, "--files", "2", "--root", work / "crawl", "--output", work / "list.txt"],
        ["run", work / "made.yaml", "--output", work / "out", "--workers", "1"],
        ["mix", work / "mixture.yaml", "--output", work / "plan/plan.json", "--workers", "1"],
        ["report", work / "plan/plan.json", "--output", work / "report"],
    ):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    return work


@pytest.fixture(scope="module")
def ingested(home, tmp_path_factory) -> tuple[Path, Path, dict[str, TaskEnd], str]:
    """A run under a hostile name, with two of its tasks killed: its folder, notes, ends of tasks, log."""
    notes = tmp_path_factory.mktemp("notes")
    work = tmp_path_factory.mktemp("work") / HOSTILE
    work.mkdir()
    made_work(work)
    asked = {
        "mixture": str(work / "mixture.yaml"),
        "plan": str(work / "plan/plan.json"),
        "report": str(work / "report"),
    }
    log = home.run_dag(DAG, params_of(work, **asked), noting_headrace(notes) | {"KILLED": "once"})
    return work, notes, home.ends(DAG), log


def test_airflow_reads_the_dag_without_an_error(home):
    errors = home.call("dags", "list-import-errors", "--local")
    assert errors.returncode == 0, errors.stdout
    assert errors.stdout.rstrip().endswith("No data found")


def test_the_bytes_are_those_of_a_run_by_hand(by_hand, ingested):
    work, _, _, log = ingested
    expected = tree_hashes(by_hand / "out")
    assert len([path for path in expected if path.endswith(".bin")]) >= 3
    assert tree_hashes(work / "out") == expected, log[-3000:]
    assert (work / "list.txt").read_bytes() == (by_hand / "list.txt").read_bytes()
    assert tree_hashes(work / "plan") == tree_hashes(by_hand / "plan")
    assert sorted(tree_hashes(work / "report")) == ["report.html", "report.json"]


def test_killed_tasks_are_tried_again_and_do_only_what_is_missing(ingested):
    work, notes, ends, log = ingested
    assert (notes / "part").exists() and (notes / "rest").exists(), log[-3000:]
    assert ends == {
        "list": TaskEnd("success", 1),
        "parts": TaskEnd("success", 1),
        "engine": TaskEnd("success", 1),
        "local.read[0]": TaskEnd("success", 2),
        "local.read[1]": TaskEnd("success", 1),
        "local.merge": TaskEnd("success", 2),
        "spark.read": TaskEnd("skipped", 0),
        "spark.merge": TaskEnd("skipped", 0),
        "verify": TaskEnd("success", 1),
        "mix": TaskEnd("success", 1),
        "report": TaskEnd("success", 1),
    }
    assert log.count("headrace run: ended with status -9") >= 2
    (finished,) = json.loads((work / "out/run.json").read_text())["runs"]
    assert finished["stages"]["1-read"]["done"] == 0, "the parts read everything"
    assert finished["stages"]["2-identify"]["found"] == 1, "what the killed task had committed"


def test_no_shell_and_no_template_reads_a_parameter_and_no_secret_goes_on(ingested):
    work, notes, _, _ = ingested
    assert not (notes / "canary").exists()
    run = ["run", f"--output={work / 'out'}", "--engine=datatrove", "--workers=1"]
    words = [call["words"] for call in calls(notes)]
    assert [*run, "--part=1/2", "--", str(work / "made.yaml")] in words
    assert words.count([*run, "--", str(work / "made.yaml")]) == 2
    assert not any(call["leaked"] for call in calls(notes))


def test_spark_gives_the_same_bytes_and_without_a_mixture_there_is_no_plan(home, by_hand, tmp_path):
    work = tmp_path / HOSTILE
    work.mkdir()
    made_work(work)
    spark = {name: value for name, value in spark_environment(tmp_path).items() if os.environ.get(name) != value}
    connection = {"AIRFLOW_CONN_SPARK_HERE": json.dumps({"conn_type": "spark", "host": "local[2]"})}
    more = noting_headrace(tmp_path) | spark | connection | {"HEADRACE_HOME": str(REPOSITORY)}
    options = [f"{name}={value}" for name, value in SMALL.items()]
    asked = params_of(work, parts=1, engine="spark", engine_options=options, spark_conn_id="spark_here")
    log = home.run_dag(DAG, asked, more)
    assert home.ends(DAG) == {
        "list": TaskEnd("success", 1),
        "parts": TaskEnd("success", 1),
        "engine": TaskEnd("success", 1),
        "local.read": TaskEnd("skipped", 0),
        "local.merge": TaskEnd("skipped", 0),
        "spark.read[0]": TaskEnd("success", 1),
        "spark.merge": TaskEnd("success", 1),
        "verify": TaskEnd("success", 1),
        "mix": TaskEnd("skipped", 1),
        "report": TaskEnd("skipped", 0),
    }, log[-3000:]
    assert tree_hashes(work / "out") == tree_hashes(by_hand / "out")
    assert json.loads((work / "out/run.json").read_text())["runs"][0]["engine"] == "spark"
    assert not (tmp_path / "canary").exists()
    assert [call["words"][0] for call in calls(tmp_path)] == ["crawl", "run", "verify"]
