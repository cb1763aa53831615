"""What docs/clusters.md gives to type is right, also for clusters that are not here: its options and settings exist.

What takes a second is run here: the comparison of two outputs, and the zip for YARN's cluster mode. The commands for
engines that are here are run by the tests that the page names.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pyspark
import pytest
import yaml
from spark_cluster import spark_environment
from trees import OUTSIDE_THE_LAW

from headrace import main
from pipelines.engines.beam import beam_arguments
from pipelines.engines.slurm import SlurmOptions
from pipelines.recipe import load_recipe
from pipelines.submit import main as submit

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs/clusters.md").read_text()
WORKER_GIB = 1.5
"""What a Python worker may take (tests/stress)."""


def typed() -> list[str]:
    """Return every command of the shell blocks as one line, without what only sets its environment."""
    blocks = "".join(re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    joined = re.sub(r"\\\n|(?<=\|)\n", " ", blocks)
    lines = [re.sub(r" +# .*", "", line) for line in joined.splitlines()]
    return [re.sub(r"^env (-u \w+ )*(\w+=\S+ )*", "", line) for line in lines]


LINES = typed()
HEADRACE = [shlex.split(line)[1:] for line in LINES if line.startswith("headrace ")]
SPARK = [shlex.split(line)[1:] for line in LINES if line.startswith("spark-submit ")]
[COMPARISON] = [line for line in LINES if line.startswith("(cd OUT ")]
[MAKE_ZIP] = [line for line in LINES if line.startswith("python3 -c ")]
[ENVIRONMENT] = [line for line in LINES if line.startswith("worker/bin/pip install ")]
UNTESTED = ["python3.11 -m venv worker", "worker/bin/venv-pack --prefix worker --output environment.tar.gz"]
"""Commands of others. They were run by hand."""


def test_every_line_is_tested():
    assert len(LINES) == len(HEADRACE) + len(SPARK) + len([COMPARISON, MAKE_ZIP, ENVIRONMENT]) + len(UNTESTED)
    assert set(UNTESTED) <= set(LINES)


def test_there_are_commands_for_every_engine():
    engines = {parsed(main.get_command(click.Context(main), "run"), words[1:])["engine"]
               for words in HEADRACE if words[0] == "run"}  # fmt: skip
    assert engines == {None, "spark", "beam", "slurm"}
    masters = {words[words.index("--master") + 1].partition(":")[0] for words in SPARK}
    assert masters == {"local[8]", "spark", "yarn", "k8s"}
    for name in ("FlinkRunner", "DataflowRunner", "PortableRunner"):
        assert any(f"runner={name}" in words for words in HEADRACE)


def parsed(command: click.Command | None, words: list[str]) -> dict:
    """Return the options of a command line. Raises what click says of a wrong one."""
    assert command is not None
    return command.make_context(command.name, list(words)).params


# headrace


@pytest.mark.parametrize("words", HEADRACE, ids=" ".join)
def test_commands_of_headrace(words):
    given = parsed(main.get_command(click.Context(main), words[0]), words[1:])
    options = given.get("options", {})
    match given.get("engine"):
        case "beam":
            assert beam_arguments(2, options)
        case "slurm":
            assert SlurmOptions.parse(options).partition == "cpu"
        case "spark":
            assert all(spark_knows(key) for key in options)
        case _:
            assert not options


def test_slurm_s_options_and_their_defaults_are_told():
    section = PAGE.partition("## Slurm\n")[2].partition("\n## ")[0]
    for field in dataclasses.fields(SlurmOptions):
        assert re.search(rf"\b{field.name}\b", section), field.name
    options = SlurmOptions("cpu", "1")
    assert f"`cpus_per_task` ({options.cpus_per_task};" in section
    assert f"`tasks` (most of an array, {options.tasks})" in " ".join(section.split())
    assert f"`poll_seconds` ({options.poll_seconds:g})" in section


def test_variables_of_the_environment_are_read():
    code = "".join(path.read_text() for path in (REPOSITORY / "pipelines/storage").glob("*.py"))
    told = set(re.findall(r"`(HEADRACE_\w+)`", PAGE))
    assert told == set(re.findall(r'"(HEADRACE_\w+[A-Z])"', code))
    assert '"AWS_MAX_ATTEMPTS", 10' in code


# spark-submit


@pytest.fixture(scope="module")
def spark_options(tmp_path_factory) -> set[str]:
    script = Path(sysconfig.get_path("scripts")) / "spark-submit"
    environment = spark_environment(tmp_path_factory.mktemp("spark"))
    done = subprocess.run([str(script), "--help"], env=environment, capture_output=True, text=True, check=False)
    found = set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", done.stdout + done.stderr, re.MULTILINE))
    assert "--master" in found, done.stderr
    return found


def settings_of(words: list[str]) -> dict[str, str]:
    pairs = [value.split("=", 1) for word, value in zip(words, words[1:], strict=False) if word == "--conf"]
    return dict(pairs)


def split_at_script(words: list[str]) -> tuple[list[str], list[str]]:
    """Return what is for spark-submit, and what is for the job."""
    place = next(place for place, word in enumerate(words) if word.endswith("pipelines/tokenize.py"))
    return words[:place], words[place + 1 :]


@pytest.mark.parametrize("words", SPARK, ids=" ".join)
def test_commands_of_spark(words, spark_options):
    own, job = split_at_script(words)
    assert len(own) % 2 == 0, "every option that is used here has a value"
    assert set(own[::2]) <= spark_options
    assert all(spark_knows(key) for key in settings_of(own))
    assert parsed(submit, job)["output"]


@pytest.mark.parametrize("words", SPARK, ids=" ".join)
def test_python_and_recipe_are_where_the_driver_looks(words):
    """An archive is unpacked for executors, and for the driver only in cluster mode, which sees no file of ours."""
    own, job = split_at_script(words)
    given, settings, recipe = (
        dict(zip(own[::2], own[1::2], strict=True)),
        settings_of(own),
        parsed(submit, job)["recipe"],
    )
    in_cluster = given.get("--deploy-mode") == "cluster"
    if "--archives" in given:
        folder = given["--archives"].partition("#")[2]
        assert settings["spark.pyspark.python"] == f"./{folder}/bin/python"
        assert ("spark.pyspark.driver.python" in settings) != in_cluster
    if in_cluster:
        assert recipe.is_absolute() or str(recipe) in given["--files"].split(",")
        assert not recipe.is_absolute() or f"local://{recipe.parents[1]}/pipelines/tokenize.py" in words
    else:
        assert (REPOSITORY / recipe).is_file()


@pytest.mark.parametrize("words", [words for words in SPARK if "spark.executor.memoryOverhead" in " ".join(words)])
def test_python_workers_have_the_memory_that_they_need(words):
    own, _ = split_at_script(words)
    settings = settings_of(own)
    cores = settings.get("spark.executor.cores") or dict(zip(own[::2], own[1::2], strict=True))["--executor-cores"]
    assert float(settings["spark.executor.memoryOverhead"].removesuffix("g")) >= WORKER_GIB * int(cores)


def spark_strings() -> frozenset[bytes]:
    """Return the strings in the compiled classes of Spark that define its settings (JVM specification, 4.4.7)."""
    found: set[bytes] = set()
    for jar in (Path(pyspark.__file__).parent / "jars").glob("spark-*.jar"):
        if re.match(r"spark-(core|common-utils|catalyst|sql-api|yarn|kubernetes)_", jar.name):
            with zipfile.ZipFile(jar) as classes:
                names = [name for name in classes.namelist() if re.search(r"([Cc]onf|package).*\.class$", name)]
                found.update(string for name in names for string in strings_of(classes.read(name)))
    return frozenset(found)


def strings_of(compiled: bytes) -> Iterator[bytes]:
    """Yield what looks like a short constant: tag 1, two bytes of length, and so many bytes."""
    for found in re.finditer(rb"\x01\x00(?=(.))", compiled, re.DOTALL):
        start = found.end() + 1
        yield compiled[start : start + found[1][0]]


STRINGS = spark_strings()


def spark_knows(setting: str) -> bool:
    """Whether Spark has a setting; Kubernetes' are in part put together from a beginning and a last word."""
    beginning, _, last = setting.rpartition(".")
    put_together = beginning.count(".") > 1 and {beginning.encode(), f"\1.{last}".encode()} <= STRINGS
    return beginning == "spark.executorEnv" or setting.encode() in STRINGS or put_together


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"`(spark\.[\w.]+)`", PAGE))))
def test_settings_that_the_text_names_exist(setting):
    assert spark_knows(setting)


@pytest.mark.parametrize("setting", ["spark.executor.memoryoverhead", "spark.executor.pysparkMemory", "spark.archive"])
def test_settings_that_do_not_exist_are_found(setting):
    assert not spark_knows(setting)


# What is run here


def compared(folder: Path) -> str:
    line = COMPARISON.replace("OUT", shlex.quote(str(folder)))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[0-9a-f]{64}  -\n", done.stdout)
    return done.stdout


def test_outputs_are_compared_but_for_what_is_no_data(tmp_path):
    one, other = tmp_path / "one", tmp_path / "the other"
    (one / "tokens/web/language=a b").mkdir(parents=True)
    (one / "tokens/web/language=a b/0.bin").write_bytes(b"1234")
    (one / "ledger.parquet").write_bytes(b"5")
    shutil.copytree(one, other)
    for name in OUTSIDE_THE_LAW:
        (one / name).write_text("one")
    assert compared(one) == compared(other)
    (other / "tokens/web/language=a b/0.bin").write_bytes(b"1235")
    assert compared(one) != compared(other)


def test_the_zip_for_cluster_mode(tmp_path):
    line = MAKE_ZIP.replace("python3", shlex.quote(sys.executable))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"headrace-[0-9a-f]{64}\.zip\n", done.stdout)
    assert any("headrace-HASH.zip" in words for words in SPARK)
    with zipfile.ZipFile(tmp_path / done.stdout.strip()) as made:
        assert {"pipelines/submit.py", "tokenizer/shards.py"} <= set(made.namelist())


def test_the_environment_is_made_of_what_there_is():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    [extras] = re.findall(r"'\.\[([\w,]+)\]'", ENVIRONMENT)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    [lock] = re.findall(r"-c (\S+)", ENVIRONMENT)
    assert (REPOSITORY / lock).is_file()


def test_the_recipe_that_is_shown(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert yaml.safe_load(block)["sources"]
    (tmp_path / "recipe.yaml").write_text(block)
    (tmp_path / "dump.paths").write_text("crawl-data/a.warc.gz\t5\n")
    (source,) = load_recipe(tmp_path / "recipe.yaml").sources
    assert source.root.files == tmp_path / "dump.paths"
    (split,) = source.source.splits(source.root.open())
    assert split.files[0].path == "crawl-data/a.warc.gz"


def test_the_tests_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert named
    for path in named:
        assert (REPOSITORY / path).is_file(), path
