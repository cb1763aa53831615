"""`headrace train-classifier`: what it reads, what it says, and what it refuses."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from click.testing import CliRunner, Result
from runs import SHARED

from headrace import main
from pipelines.quality_classifier import labelled
from pipelines.quality_classifier.model import QualityModel
from pipelines.sources import decompress

LABELS = SHARED / "web_text/dclm_quality_labels/agreement_data.jsonl"


def train(*words: object) -> Result:
    return CliRunner().invoke(main, ["train-classifier", *(str(word) for word in words)])


def lines(num: int = 40, text: str = "text", label: str = "label", **labels: object) -> bytes:
    good, bad = labels.get("good", 1), labels.get("bad", 0)
    rows = []
    for number in range(num):
        words = f"water mill wheel {number}" if number % 2 else f"click login buy {number}"
        rows.append(json.dumps({text: words, label: good if number % 2 else bad}))
    return "\n".join(rows).encode() + b"\n"


def model_in(path: Path) -> QualityModel:
    return QualityModel.unpack(path.read_bytes(), str(path))


def test_it_learns_what_is_plain(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(lines())
    result = train(tmp_path / "data.jsonl", "-o", tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert "documents: 40 (20 '0', 20 '1'); positive: '1'" in result.output
    assert "out-of-fold AUC: 1.0000 (95% interval 1.0000 to 1.0000), 5 folds" in result.output
    assert hashlib.sha256((tmp_path / "model").read_bytes()).hexdigest() in result.output
    model = model_in(tmp_path / "model")
    scores = model.scores(pa.array(["the water of the mill", "login or click"], pa.large_string()))
    assert scores[0] > 5000 > scores[1]
    assert model.about["documents"] == 40
    assert model.about["positives"] == 20
    assert model.bits == 18


def test_compression_and_cuts_do_not_matter(tmp_path):
    data = lines()
    (tmp_path / "data.jsonl").write_bytes(data)
    middle = data.index(b"\n", len(data) // 2) + 1
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data[:middle]))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(data[middle:] + b"\n \n"))
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(data.rstrip()))
    for name, files in {"one": ["data.jsonl"], "two": ["a.jsonl.gz", "b.jsonl.zst"], "bz2": ["c.jsonl.bz2"]}.items():
        assert train(*(tmp_path / file for file in files), "-o", tmp_path / name).exit_code == 0
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "bz2")}) == 1


def test_batches_and_blocks_do_not_matter(tmp_path, monkeypatch):
    (tmp_path / "data.jsonl").write_bytes(lines())
    assert train(tmp_path / "data.jsonl", "-o", tmp_path / "one").exit_code == 0
    monkeypatch.setattr(labelled, "BATCH_BYTES", 50)
    monkeypatch.setattr(decompress, "BLOCK_BYTES", 7)
    assert train(tmp_path / "data.jsonl", "-o", tmp_path / "two").exit_code == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_other_fields_and_labels(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(lines(text="body", label="kind", good="prose", bad="debris"))
    words = (tmp_path / "data.jsonl", "-o", tmp_path / "model", "--text-field", "body", "--label-field", "kind")
    result = train(*words)
    assert result.exit_code == 1
    assert "labels in field 'kind' are 'debris' (20), 'prose' (20)" in result.output
    assert "--positive names the one" in result.output
    assert train(*words, "--positive", "prose", "--bits", 8, "--penalty", 1, "--folds", 2, "--seed", 9).exit_code == 0
    about = model_in(tmp_path / "model").about
    assert [about[name] for name in ("positive", "seed", "penalty", "folds")] == ["prose", 9, 1.0, 2]
    assert model_in(tmp_path / "model").bits == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a", "label": 1}\n{"text"', r"data.jsonl:2: is no JSON"),
        (b"[1]", "data.jsonl:1: found list"),
        (b'\n\n{"label": 1}', "data.jsonl:3: field 'text' is missing or null, allowed is text"),
        (b'{"text": 5, "label": 1}', "data.jsonl:1: field 'text' is a int, allowed is text"),
        (b'{"text": "a", "label": [1]}', "data.jsonl:1: field 'label' is a list"),
        (b'{"text": "\\ud800", "label": 1}', "data.jsonl:1: is no JSON"),
        (b"", "labels in field 'label' are none"),
        (b'{"text": "a", "label": 1}', "labels in field 'label' are '1' (1)"),
        (b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}', "too few documents for 5 folds"),
        (b"x" * 3000, "data.jsonl:1: the line is longer than 2000 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused(content, said, tmp_path, monkeypatch):
    monkeypatch.setattr(labelled, "MAX_LINE_BYTES", 2000)
    (tmp_path / "data.jsonl").write_bytes(content)
    result = train(tmp_path / "data.jsonl", "-o", tmp_path / "model")
    assert result.exit_code == 1
    assert said in re.sub(r"\s+", " ", result.output)
    assert "Traceback" not in result.output
    assert not (tmp_path / "model").exists()


def test_files_that_cannot_be_read_or_written(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(lines())
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines())[:-20])
    assert "nothing: cannot be read" in re.sub(r"\s+", " ", train(tmp_path / "nothing", "-o", tmp_path / "m").output)
    assert "is damaged behind byte" in train(tmp_path / "cut.jsonl.gz", "-o", tmp_path / "m").output
    assert "cannot be written" in train(tmp_path / "data.jsonl", "-o", tmp_path / "no/folder").output


@pytest.mark.skipif(not LABELS.exists(), reason="the shared data is not here")
def test_human_labels(tmp_path):
    """The labels of 281 web texts: well above chance out of fold, and the same model each time."""
    result = train(LABELS, "-o", tmp_path / "model")
    assert result.exit_code == 0, result.output
    [[value, low]] = re.findall(r"out-of-fold AUC: ([\d.]+) \(95% interval ([\d.]+)", result.output)
    assert float(value) > 0.9
    assert float(low) > 0.85
    train(LABELS, "-o", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()
