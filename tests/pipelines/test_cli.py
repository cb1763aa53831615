"""The command line: help, exit statuses, errors without tracebacks, and what it shows."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from made import SOURCES
from runs import REPOSITORY
from trees import tree_hashes

from headrace import COMMANDS, main

OPTIONS = {
    "crawl": ["--files", "-n", "--output", "-o", "--kind", "--root", "--help", "DUMP"],
    "run": [
        *("--output", "-o", "--workers", "-w", "--engine", "--engine-option", "--part", "--limit", "--dry-run"),
        *("--help", "RECIPE"),
    ],
    "verify": ["--help", "OUTPUT"],
    "explain": ["--help", "OUTPUT", "DOC_ID"],
    "tune": ["--output", "-o", "--source", "--rule", "--examples", "--json", "--help", "RECIPE"],
    "train": ["--plan", "-p", "--output", "-o", "--steps", "-s", "--help", "CONFIG"],
    "train-extractor": [
        *("--work", "--data", "--output", "-o", "--collection", "-c", "--skip-missing", "--trees", "--help"),
    ],
    "contamination-index": ["--output", "-o", "--fields", "--help", "NAME=FILE"],
    "train-classifier": [
        *("--output", "-o", "--text-field", "--label-field", "--positive", "--folds", "--seed", "--bits", "--penalty"),
        *("--help", "DATA"),
    ],
    "report": ["--output", "-o", "--help", "RUN_OR_PLAN"],
    "replay": ["--json", "--help", "OUTPUT", "DOC_ID"],
    "mix": ["--output", "-o", "--workers", "-w", "--help", "MIXTURE"],
    "trace": [
        *("--plan", "-p", "--step", "-s", "--row", "-r", "--column", "-c"),
        *("--document", "-d", "--text", "--json", "--help"),
        "replay",
    ],
}


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def unfolded(text: str) -> str:
    return " ".join(text.split())


def told(result: Result, status: int) -> str:
    """Check that a command ended with an error that people can read; returns what it said on one line."""
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return unfolded(result.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    for option in OPTIONS[command]:
        assert option in result.output
    named = main.get_command(click.Context(main), command)
    declared = {name for param in named.params for name in param.opts}
    assert {name for name in declared if name.startswith("-")} <= set(OPTIONS[command]), "an option without a test"


def test_the_main_help_tells_of_each_command():
    output = call("--help").output
    for command in COMMANDS:
        assert f"\n  {command} " in output
    assert "nothing lost on the way" in unfolded(output)
    assert call("-h").output == output
    assert call("run", "-h").exit_code == 0


@pytest.mark.parametrize("arguments", [["--help"], *([command, "-h"] for command in COMMANDS)])
def test_help_is_quick(arguments):
    """Nothing heavy is imported before a command runs, and it takes well under a CPU second."""
    script = (
        "import sys\nimport headrace\n"
        f"try:\n    headrace.main({arguments!r})\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'pyarrow', 'numba', 'numpy', 'datatrove', 'tiktoken', 'gigatoken', 'pydantic', 'yaml', 'rich'}\n"
        "heavy.add('torch')\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_the_console_script(made, tmp_path):
    script = Path(sys.executable).parent / "headrace"
    if not script.exists():
        pytest.skip("the package is not installed")
    done = subprocess.run(
        [script, "run", made, "-o", tmp_path / "out", "-w", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "1-read: 3 of 3 to do" in done.stdout
    again = subprocess.run([script, "verify", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "canonical order" in again.stdout


def test_a_run_shows_where_everything_went(made, finished, tmp_path):
    result = call("run", made, "--output", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert tree_hashes(tmp_path / "out") == tree_hashes(finished)
    ledger = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
    lines = [unfolded(line.replace("│", " ")) for line in result.output.splitlines()]
    put_out = [row for row in ledger if row["table"] == "tokens" and row["account"] == "out"]
    for source in (*SOURCES, "total"):
        rows = [row for row in put_out if source in (row["source"], "total")]
        sums = " ".join(f"{sum(row[column] for row in rows):,}" for column in ("rows", "bytes", "tokens"))
        assert any(line.startswith(f"{source} {sums} ") for line in lines), (source, sums)
    for reason in ("http_status", "extract.too_complex", "gopher_quality.min_words", "exact_duplicate", "same_key"):
        assert any(f"dropped {reason} 1" in line for line in lines)
    said = unfolded(result.output)
    for place in ("tokens", "stages", "ledger.parquet"):
        assert str(tmp_path / "out" / place) in said
    assert "11 splits and buckets done, 0 found committed" in said, "three splits, and two buckets in each stage"


def test_a_dry_run_writes_nothing(made, tmp_path):
    before = tree_hashes(made.parent)
    result = call("run", made, "--output", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out").exists()
    assert tree_hashes(made.parent) == before
    said = unfolded(result.output)
    assert "nothing was written" in said
    for word in (*SOURCES, "extract, language, gopher_quality", "1-read", "5-tokenize", "commoncrawl"):
        assert word in said


def test_a_dry_run_refuses_a_wrong_recipe(tmp_path):
    (tmp_path / "wrong.yaml").write_text("sources: {web: {reader: warc}}")
    said = told(call("run", tmp_path / "wrong.yaml", "-o", tmp_path / "out", "--dry-run"), 1)
    assert "sources.web.reader: found 'warc'" in said
    assert not (tmp_path / "out").exists()


def test_a_limit_reads_so_many_records_of_each_file(made, tmp_path):
    result = call("run", made, "--output", tmp_path / "out", "--workers", 1, "--limit", 1)
    assert result.exit_code == 0, result.output
    read = [
        row["rows"]
        for row in pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
        if (row["stage"], row["step"], row["account"], row["table"]) == ("1-read", 0, "in", "documents")
    ]
    assert read == [1, 1, 1]
    assert json.loads((tmp_path / "out/recipe.json").read_text())["sources"]["web"]["limit"] == 1
    assert call("verify", tmp_path / "out").exit_code == 0
    said = told(call("run", made, "--output", tmp_path / "out", "--workers", 1), 1)
    assert "was made by another recipe (it differs in sources.code.limit: 1 there, null here)" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "flink"], "Invalid value for --engine: found 'flink', allowed are datatrove, slurm, spark, beam"),
        (["--part", "3/2"], "Invalid value for '--part': found '3/2', allowed is K/N with 1 <= K <= N"),
        (["--engine-option", "a"], "Invalid value for '--engine-option': found 'a', allowed is KEY=VALUE"),
        (["--workers", "0"], "0 is not in the range x>=1"),
        (["--workers", "two"], "'two' is not a valid integer"),
        (["--limit", "0"], "0 is not in the range x>=1"),
        (["--fast"], "No such option"),
    ],
)
def test_wrong_usage_ends_with_status_2(options, said, made, tmp_path):
    assert said in told(call("run", made, "--output", tmp_path / "out", *options), 2)
    assert not (tmp_path / "out").exists()


def test_missing_arguments_end_with_status_2(made):
    assert "Missing option '--output'" in told(call("run", made), 2)
    assert "Missing argument 'RECIPE'" in told(call("run", "-o", "out"), 2)
    assert "Missing argument 'OUTPUT'" in told(call("verify"), 2)
    assert "Missing argument 'DOC_ID'" in told(call("explain", "out"), 2)
    assert "No such command" in told(call("tokenize"), 2)


def test_an_output_that_is_a_file(made, tmp_path):
    (tmp_path / "out").touch()
    assert "is a file" in told(call("run", made, "--output", tmp_path / "out"), 2)


def test_a_recipe_that_is_not_there(tmp_path):
    said = told(call("run", tmp_path / "none.yaml", "--output", tmp_path / "out"), 1)
    assert said == f"Error: {tmp_path / 'none.yaml'}: No such file or directory hint: give the path of a recipe file"
    assert "is a directory" in told(call("run", tmp_path, "--output", tmp_path / "out"), 2)


@pytest.mark.parametrize("command", [("verify",), ("explain", "00")])
def test_a_folder_without_a_run(command, tmp_path):
    name, *arguments = command
    for folder in (tmp_path, tmp_path / "none"):
        said = told(call(name, folder, *arguments), 1)
        assert "recipe.json: is missing: the folder holds no finished run" in said
        assert "hint:" in said


def test_verify_says_what_it_found_right(finished):
    result = call("verify", finished)
    assert result.exit_code == 0, result.output
    for word in ("files:", "strays: none", "ledger:", "order:", "tokens: tokens/web/language=en"):
        assert word in result.output


def test_verify_tells_of_a_damaged_manifest_without_a_traceback(finished, tmp_path):
    """The tokenizer's own errors are no `HeadraceError`."""
    subprocess.run(["cp", "-r", finished, tmp_path / "out"], check=True)
    manifest = next((tmp_path / "out/tokens").rglob("manifest.json"))
    manifest.write_text("{}")
    assert "manifest.json" in told(call("verify", tmp_path / "out"), 1)


def test_markup_in_a_value_is_shown_as_it_is(made, tmp_path):
    """Console markup that stands in data or paths is no markup."""
    folder = tmp_path / "[bold]x[/nothing]"
    result = call("run", made, "--output", folder, "--workers", 1, "--limit", 1)
    assert result.exit_code == 0, result.output
    assert str(folder / "tokens") in unfolded(result.output)
    assert call("verify", folder).exit_code == 0
