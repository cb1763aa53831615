"""The benchmark of deduplication: its bars, its slope, and one small job of ours from end to end."""

from __future__ import annotations

import json
import math
import sys

import dedup_corpus
import pytest
from dedup_peers import HERE, Process, run_process

from benchmarks import dedup as benchmark


def test_bars(capsys):
    result = dict(benchmark.BARS) | {"job_exponent": 1.1}
    assert benchmark.missed(result) == []
    result |= {"job_exponent": 1.11, "job_ratio_to_rensa": 0.49}
    assert benchmark.missed(result) == ["job_ratio_to_rensa", "job_exponent"]
    assert "missed: job_ratio_to_rensa is 0.49, the bar is 0.5" in capsys.readouterr().err


def test_the_slope_is_the_power():
    sizes = [50.0, 100.0, 500.0]
    logs = [math.log(size) for size in sizes]
    assert benchmark.slope(logs, [math.log(3 * size**1.5) for size in sizes]) == pytest.approx(1.5)


def test_the_last_line_has_the_numbers():
    assert benchmark.last_numbers(Process(0.0, 0, "a warning\n0.5 2 17\n")) == [0.5, 2.0, 17.0]


def test_sizes_are_made_once_each():
    assert benchmark.Sizes(1, 2, 3, 2, 5, (5, 6)).all() == {1, 2, 3, 5, 6}


def test_our_job_from_end_to_end(tmp_path):
    """Of ten documents one is the same as another, and one nearly so."""
    words = [[f"w{text}x{number}" for number in range(100)] for text in range(8)]
    texts = [" ".join(one) for one in words]
    texts += [texts[3], " ".join([*words[5][:99], "other"])]
    (tmp_path / "in").mkdir()
    dedup_corpus.write_documents(tmp_path / "in/documents.parquet", iter(texts))
    command = [sys.executable, HERE / "dedup_run.py", tmp_path / "in", tmp_path / "out", "--warm-up", tmp_path / "in"]
    done = json.loads(run_process(command, HERE.parent).output.splitlines()[-1])
    assert (done["documents"], done["kept"]) == (10, 8)
    assert done["removed"] == {"exact_duplicate": 1, "near_duplicate": 1}
    assert 0 < done["cpu_s"] < sum(done["by_stage"].values())
