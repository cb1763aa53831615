"""A mixture that cannot be is refused with the file, the key, the value and what is allowed."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from mixtures.errors import MixtureError
from mixtures.holdout import Validation
from mixtures.mixture import exact, load_mixture
from mixtures.plan import Windows

GOOD = {
    "name": "good",
    "seed": 3,
    "classes": {"text": {"epochs": 2}, "talk": {"epochs": "1/2", "cut": "never"}},
    "sources": {
        "web": {"class": "text", "manifests": ["run/tokens/web/**/manifest.json"]},
        "talks": {"class": "talk", "manifests": ["run/tokens/talks/manifest.json"]},
    },
    "phases": [{"length": 128, "global_batch": 4}],
    "validation": {"share": 0.05, "key": "k"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("web/language=de", "web/language=en", "talks"):
        path = tmp_path / "run/tokens" / name
        path.mkdir(parents=True)
        (path / "manifest.json").write_text("{}")
    return tmp_path


def write(folder: Path, data: object) -> Path:
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_good_one(folder):
    mixture = load_mixture(write(folder, GOOD))
    web = folder / "run/tokens/web"
    assert mixture.sources["web"].manifests == (web / "language=de/manifest.json", web / "language=en/manifest.json")
    assert exact(mixture.classes["talk"].epochs) == Fraction(1, 2)
    assert mixture.validation == Validation("doc_id", "k", (1, 20))
    assert mixture.windows == Windows(20_000, 4)
    assert (mixture.seed, mixture.phase.length, mixture.phase.global_batch) == (3, 128, 4)


def test_patterns_may_lead_out_of_the_folder(folder):
    below = folder / "below"
    below.mkdir()
    data = GOOD | {"sources": {"web": {"class": "text", "manifests": ["../run/tokens/web/*/manifest.json"]}}}
    assert len(load_mixture(write(below, data)).sources["web"].manifests) == 2
    absolute = str(folder / "run/tokens/web/**/manifest.json")
    data = GOOD | {"sources": {"web": {"class": "text", "manifests": [absolute]}}}
    assert len(load_mixture(write(below, data)).sources["web"].manifests) == 2


@pytest.mark.parametrize(("amount", "expected"), [(2, "2"), (1.1, "11/10"), ("3/2", "3/2"), ("0.25", "1/4")])
def test_amounts_are_what_was_written(amount, expected):
    assert exact(amount) == Fraction(expected)


WRONG = [
    ("no such key", {"epochs": 2}, "epochs: found 2: unknown key; allowed are name, seed"),
    ("no sources", {"sources": {}}, "sources: found {}: a mapping of at least one"),
    ("an unknown class", {"sources.web.class": "prose"}, "sources.web.class: found 'prose': one of the classes "),
    ("no manifest", {"sources.web.manifests": ["run/tokens/no/*.json"]}, "no such manifest below"),
    ("manifests as text", {"sources.web.manifests": "a"}, "sources.web.manifests: found 'a': a list of paths"),
    ("one manifest twice", {"sources.talks.manifests": ["run/tokens/web/*/manifest.json"]}, "is a manifest of source"),
    ("a huge epoch", {"classes.text.epochs": 5000}, "classes.text: epochs 5000: allowed are numbers above 0"),
    ("no epoch", {"classes.text.epochs": 0}, "classes.text: epochs 0: allowed are"),
    ("words for epochs", {"classes.text.epochs": "two"}, "'two': is no number; write 2, 1.5 or 3/2"),
    ("epochs over nothing", {"classes.text.epochs": "1/0"}, "'1/0': is no number"),
    ("another cut", {"classes.text.cut": "short"}, "classes.text.cut: found 'short'"),
    ("an endless number", {"classes.text.epochs": "1e99999999"}, "is no number; write 2, 1.5 or 3/2"),
    ("a list for a class", {"sources.web.class": ["text"]}, "sources.web.class: found ['text']: one of the classes"),
    ("an empty pattern", {"sources.web.manifests": [""]}, "sources.web.manifests: found ['']: a list of paths"),
    ("no phases", {"phases": []}, "phases: found []: a list of one phase"),
    (
        "two phases",
        {"phases": [{"length": 8, "global_batch": 1}, {"length": 8, "global_batch": 2}]},
        "a list of one phase",
    ),
    ("no length", {"phases": [{"global_batch": 1}]}, "phases[0].length"),
    ("a length of one", {"phases": [{"length": 1, "global_batch": 1}]}, "length 1: allowed are 2 to 1048576"),
    ("no batch", {"phases": [{"length": 8, "global_batch": 0}]}, "global_batch 0: allowed are"),
    ("all held out", {"validation": {"share": 1}}, "share 1/1: is allowed between 0 and 1"),
    ("no column", {"validation": {"share": 0.1, "column": "url"}}, "validation.column: found 'url'"),
    ("a negative seed", {"seed": -1}, "seed: found -1: an integer from 0"),
    ("a seed of text", {"seed": "a"}, "seed: found 'a'"),
    ("no window", {"windows": {"documents": 0}}, "windows: documents 0: allowed are 1 to"),
    ("a large group", {"windows": {"group": 65}}, "windows: group 65: allowed are 1 to 64"),
]


@pytest.mark.parametrize(("change", "said"), [entry[1:] for entry in WRONG], ids=[entry[0] for entry in WRONG])
def test_a_wrong_one(folder, change, said):
    data = copy.deepcopy(GOOD)
    for key, value in change.items():
        *above, last = key.split(".")
        place = data
        for name in above:
            place = place[name]
        place[last] = value
    path = write(folder, data)
    with pytest.raises(MixtureError) as error:
        load_mixture(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(MixtureError, match="hint: give the path of a mixture file"):
        load_mixture(tmp_path / "none.yaml")
