"""Every command of docs/clusters.md has options that exist, also those for clusters that are not run here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from spark_cluster import spark_environment

from headrace import main
from pipelines.engines.beam import beam_arguments
from pipelines.engines.slurm import SlurmOptions
from pipelines.recipe import load_recipe
from pipelines.submit import main as submit

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs/clusters.md").read_text()


def lines(program: str) -> Iterator[list[str]]:
    """Yield the words of each documented command of a program."""
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            if line.startswith(f"{program} "):
                yield shlex.split(line)[1:]
    if program == "spark-submit":
        for arguments in re.findall(r"Args=\[(.*?)\]", PAGE):
            yield arguments.split(",")


HEADRACE, SPARK = list(lines("headrace")), list(lines("spark-submit"))


def parsed(command: click.Command, words: list[str]) -> dict:
    return command.make_context(command.name, list(words), resilient_parsing=False).params


@pytest.mark.parametrize("words", HEADRACE, ids=" ".join)
def test_commands_of_headrace(words):
    command = main.get_command(click.Context(main), words[0])
    given = parsed(command, words[1:])
    options = given.get("options", {})
    match given.get("engine"):
        case "beam":
            assert beam_arguments(2, options)
        case "slurm":
            assert SlurmOptions.parse(options).partition == "cpu"
        case "spark":
            assert all(key.startswith("spark.") for key in options)
        case _:
            assert not options


@pytest.fixture(scope="module")
def spark_options(tmp_path_factory) -> set[str]:
    script = Path(sysconfig.get_path("scripts")) / "spark-submit"
    environment = spark_environment(tmp_path_factory.mktemp("spark"))
    done = subprocess.run([str(script), "--help"], env=environment, capture_output=True, text=True, check=False)
    found = set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", done.stdout + done.stderr, re.MULTILINE))
    assert "--master" in found, done.stderr
    return found


@pytest.mark.parametrize("words", SPARK, ids=" ".join)
def test_commands_of_spark(words, spark_options):
    place = words.index("pipelines/tokenize.py")
    named = [word for word in words[:place] if word.startswith("--")]
    assert set(named) <= spark_options
    for word, value in zip(words, words[1:place], strict=False):
        if word == "--conf":
            assert re.fullmatch(r"spark\.[\w.]+=\S+", value)
    assert parsed(submit, words[place + 1 :])["output"]


def test_there_are_commands_for_every_engine():
    assert len(HEADRACE) >= 10
    assert len(SPARK) >= 6
    for name in ("yarn", "k8s://", "FlinkRunner", "DataflowRunner", "slurm", "local[2]", "--part"):
        assert name in PAGE


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
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (REPOSITORY / path).is_file(), path
