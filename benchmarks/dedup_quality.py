"""Near-duplicates: recall and precision on labelled and on generated texts, verified or not, beside datatrove.

    python benchmarks/dedup_quality.py [--data ../shared/data] [--pairs 12000] [--peers FOLDER] [--json FILE]

All sides have datatrove's defaults: 14 bands of 8 rows, word 5-grams (our preset `fineweb`). A pair is found

- `unverified`: by us, if the two have a band in common: what others delete by;
- `verified`: by us, if besides the true Jaccard similarity of their sets of shingles is at least `THRESHOLD`;
- `job`: if a run of the recipe below removed one of the two and its stored edge leads to the other (where it leads to
  a third document, only `thinned_080` counts the pair: those of which not both stay);
- `datatrove`: if the two have a band in common in its signature files.

A document is removed, unverified and by datatrove, if it is in one cluster (connected component) with one that is kept;
verified, if one that is kept, and stands before it, is found with it. The job's order is its own: longer texts stay. A
removal is false if the true similarity of the two is below the threshold. True similarity is counted in plain Python on
sets of runs of words (`dedup_corpus.word_shingles`).

Texts (`dedup_corpus` says how the generated ones are made):

- generated: `--pairs` originals and changed copies, `FAMILIES` families of templates, `DISTRACTORS` other documents.
  `recall_080` is over pairs of a true similarity of 0.8 and more; `expected` is the mean of 1 - (1 - s^8)^14 over them.
- articles: news with plagiarised pairs, by the label and by true similarity of all pairs of articles.
- answers: short answers beside the article they were made of (clough_stevenson), by the author's way: cut, light and
  heavy revision, none. Revised ones are not near-duplicates by their shingles, whatever their label.
- news: 350 articles of lee_similarity. 50 of them have human judgements (0 to 1) of what they are about, which share
  no words: no near-duplicates, whatever the judgement.

The benchmark fails if ours is below datatrove's recall_080 by more than two standard errors of the paired difference,
or if a removal that is verified, or that the job made, is false.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from dedup_corpus import (
    Sentences,
    jaccard,
    make_documents,
    make_pairs,
    make_templates,
    word_shingles,
    write_documents,
)
from dedup_peers import DEFAULT_PEERS, Found, datatrove, datatrove_found, peer_python
from main_job import run_once

from pipelines.near_duplicates.jaccard import meets, shared_counts
from pipelines.near_duplicates.presets import PRESETS
from pipelines.near_duplicates.shingles import shingle_sets
from pipelines.near_duplicates.signatures import text_band_keys
from pipelines.recipe import load_recipe
from pipelines.sinks.tables import read_table
from pipelines.storage.local import LocalStorage

SHAPE = PRESETS["fineweb"]
THRESHOLD = 7_500
"""In 1/10,000 of Jaccard similarity."""
FAMILIES, FAMILY_SIZE, DISTRACTORS = 200, 10, 3_000
BINS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0001)
LABELS = ("cut", "light", "heavy", "non")
MAX_ERRORS = 2.0
"""Standard errors that our recall may lie below datatrove's."""

RECIPE = """\
sources: {{texts: {{reader: table, root: {folder}, include: ["*.parquet"], id: id}}}}
deduplicate: {{near: {{preset: fineweb, threshold: {threshold}}}}}
output: {{buckets: 8}}
"""
VERIFIED = ("verified", "job")
"""Those whose removals must be true."""

Pair = tuple[int, int]
Shingles = Sequence[frozenset[tuple[str, ...]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Texts:
    """Texts, and pairs of their positions (first, second; ascending) by label."""

    texts: list[str]
    labelled: Mapping[str, Sequence[Pair]]


def main() -> None:
    """Measure, print, write JSON if asked to; exit status 1 for a recall or a removal that must not be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "../shared/data")
    parser.add_argument("--pairs", type=int, default=12_000, help="generated pairs; about half are at 0.75 and above")
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="where the peers' environment is kept")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    python = peer_python(arguments.peers)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.data, arguments.pairs, python, Path(folder))
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(failures(result)))


def measure(data: Path, num_pairs: int, python: Path, scratch: Path) -> dict[str, Any]:
    """Return every figure by its name."""
    result: dict[str, Any] = {"threshold": THRESHOLD / 10_000}
    texts = generated(Sentences.read(data), num_pairs)
    result["generated"] = of_generated(texts, *everybody(texts.texts, python, scratch / "generated"))
    gold = data / "dedup_gold"
    for name, texts in {**articles(gold), "answers": answers(gold), "news": news(gold)}.items():
        result[name] = of_labelled(texts, *everybody(texts.texts, python, scratch / name))
    result["news"]["judgements"] = of_judgements(gold)
    return result


def everybody(texts: list[str], python: Path, folder: Path) -> tuple[Shingles, dict[str, Found]]:
    """Return the true sets of shingles, and what each side finds."""
    assert all(texts), "datatrove would pass over an empty text, and number the others anew"
    (folder / "input").mkdir(parents=True)
    write_documents(folder / "input/documents.parquet", iter(texts))
    datatrove(python, folder / "input", folder / "output")
    unverified, verified = ours(texts)
    sides = {
        "verified": verified,
        "unverified": unverified,
        "job": job(folder),
        "datatrove": datatrove_found(folder / "output"),
    }
    return [word_shingles(text) for text in texts], sides


def job(folder: Path) -> Found:
    """Run the recipe on `folder`/input and return the edges that it removed documents for."""
    recipe, output = folder / "recipe.yaml", LocalStorage(folder / "run")
    recipe.write_text(RECIPE.format(folder=json.dumps(str(folder / "input")), threshold=THRESHOLD))
    plan, _ = run_once(load_recipe(recipe), folder / "run", workers=1)
    rows = rows_of(output, f"stages/{plan.document_stages[0]}/documents", ["doc_id", "origin_offset"])
    position = {row["doc_id"]: row["origin_offset"] for row in rows}
    (sorted_edges,) = [stage.name for stage in plan.stages if stage.name.endswith("sort-near-duplicates")]
    edges = rows_of(output, f"stages/{sorted_edges}/near_duplicates", ["doc_id", "kept_doc_id"])
    removed = {position[row["doc_id"]]: position[row["kept_doc_id"]] for row in edges}
    return Found(frozenset(ascending(*pair) for pair in removed.items()), removed)


def rows_of(output: LocalStorage, folder: str, columns: list[str]) -> list[dict[str, Any]]:
    """Return the rows of all files of a table."""
    files = [file.path for file in output.list(folder) if file.path.endswith(".parquet")]
    return [row for file in files for row in read_table(output, file, columns).to_pylist()]


def ours(texts: list[str]) -> tuple[Found, Found]:
    """Return what we find without and with verification."""
    column = pa.array(texts, pa.large_string())
    keys, numbers = text_band_keys(column, SHAPE, np.zeros(len(texts), np.uint64))
    groups = defaultdict(list)
    for document in np.flatnonzero(numbers).tolist():
        for key in keys[document]:
            groups[key.tobytes()].append(document)
    pairs = sorted({pair for group in groups.values() for pair in combinations(group, 2)})
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    offsets, hashes = shingle_sets(column, SHAPE.unit, SHAPE.ngram)
    shared, sizes = shared_counts(offsets, hashes, offsets, hashes, first, second), np.diff(offsets)
    similar = meets(shared, sizes[first], sizes[second], THRESHOLD)
    verified = [pair for pair, met in zip(pairs, similar, strict=True) if met]
    return Found(frozenset(pairs), of_components(pairs)), Found(frozenset(verified), first_come(verified))


def of_components(pairs: Iterable[Pair]) -> dict[int, int]:
    """Return which documents are removed if each connected component keeps its first, and that first one."""
    parent: dict[int, int] = {}

    def root(document: int) -> int:
        while parent.setdefault(document, document) != document:
            parent[document] = document = parent[parent[document]]
        return document

    for first, second in pairs:
        one, other = sorted((root(first), root(second)))
        parent[other] = one
    return {document: root(document) for document in sorted(parent) if root(document) != document}


def first_come(pairs: Iterable[Pair]) -> dict[int, int]:
    """Return which documents are removed, in order, for a kept one before them that they are found with."""
    before = defaultdict(list)
    for first, second in pairs:
        before[second].append(first)
    removed: dict[int, int] = {}
    for document in sorted(before):
        kept = [other for other in sorted(before[document]) if other not in removed]
        if kept:
            removed[document] = kept[0]
    return removed


def generated(sentences: Sentences, num_pairs: int) -> Texts:
    """Return pairs (side by side), then templates, then distractors."""
    texts: list[str] = []
    labelled: dict[str, list[Pair]] = defaultdict(list)
    for pair in make_pairs(sentences, num_pairs):
        labelled[pair.change].append((len(texts), len(texts) + 1))
        texts.extend((pair.original, pair.changed))
    for family in make_templates(sentences, FAMILIES, FAMILY_SIZE, seed=1):
        labelled["template"].extend(combinations(range(len(texts), len(texts) + len(family)), 2))
        texts.extend(family)
    texts.extend(dict.fromkeys(make_documents(sentences, DISTRACTORS, seed=2)))
    return Texts(texts, labelled)


def articles(gold: Path) -> dict[str, Texts]:
    """Return the sets of news articles by name, with their plagiarised pairs."""
    found = {}
    for file in sorted((gold / "minhash_articles").glob("articles_*.train"), key=lambda file: file.stat().st_size):
        lines = [line.partition(" ") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        position = {name: number for number, (name, _, _) in enumerate(lines)}
        truth = [line.split() for line in file.with_suffix(".truth").read_text().splitlines() if line.strip()]
        pairs = [ascending(position[first], position[second]) for first, second in truth]
        found[file.stem] = Texts([text for _, _, text in lines], {"plagiarised": pairs})
    return found


def answers(gold: Path) -> Texts:
    """Return the answers and the articles, each answer with the article of its task by what its author did."""
    folder = gold / "clough_stevenson"
    with (folder / "file_information.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["File"], row["Task"], row["Category"]) for row in csv.DictReader(file)]
    position = {name: number for number, (name, _, _) in enumerate(rows)}
    labelled: dict[str, list[Pair]] = {label: [] for label in LABELS}
    for name, task, label in rows:
        if label in labelled:
            labelled[label].append(ascending(position[name], position[f"orig_task{task}.txt"]))
    return Texts([(folder / name).read_text(encoding="utf-8", errors="replace") for name, _, _ in rows], labelled)


def news(gold: Path) -> Texts:
    """Return the judged articles, then those of the background; no pair is labelled."""
    folder = gold / "lee_similarity"
    files = (folder / "lee.cor", folder / "lee_background.cor")
    lines = [line for file in files for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    return Texts([line for line in lines if line.strip()], {})


def of_judgements(gold: Path) -> dict[str, Any]:
    """Return how people's judgements of the 50 articles go with Jaccard similarity: why none is a near-duplicate."""
    rows = (gold / "lee_similarity/similarities0-1.txt").read_text().splitlines()
    human = [[float(value) for value in row.split()] for row in rows if row.strip()]
    sets = [word_shingles(text) for text in news(gold).texts[: len(human)]]
    pairs = list(combinations(range(len(human)), 2))
    judged, counted = [human[a][b] for a, b in pairs], [jaccard(sets[a], sets[b]) for a, b in pairs]
    return {
        "pairs": len(pairs),
        "largest_judgement": max(judged),
        "largest_jaccard": max(counted),
        "jaccard_of_pairs_judged_080_and_above": sorted(
            (round(one, 3) for one, value in zip(counted, judged, strict=True) if value >= 0.8), reverse=True
        ),
        "correlation": statistics.correlation(judged, counted),
    }


def ascending(first: int, second: int) -> Pair:
    """Return the pair with the smaller position first."""
    return (first, second) if first < second else (second, first)


def of_generated(texts: Texts, sets: Shingles, sides: Mapping[str, Found]) -> dict[str, Any]:
    """Return recall by similarity and by change, what becomes of templates, and precision."""
    pairs = [pair for label, some in texts.labelled.items() if label != "template" for pair in some]
    similarity = {pair: jaccard(sets[pair[0]], sets[pair[1]]) for pair in pairs}
    alike = [pair for pair in pairs if similarity[pair] >= 0.8]
    difference, error = paired([(pair in sides["verified"].pairs, pair in sides["datatrove"].pairs) for pair in alike])
    return {
        "documents": len(texts.texts),
        "pairs": len(pairs),
        "pairs_080": len(alike),
        "recall_080": {name: recall(side, alike) for name, side in sides.items()},
        "thinned_080": {name: thinned(side, alike) for name, side in sides.items()},
        "recall_080_expected": statistics.mean(SHAPE.probability(similarity[pair]) for pair in alike),
        "recall_080_difference": difference,
        "recall_080_standard_error": error,
        "recall_080_by_change": {
            label: {
                name: recall(side, [pair for pair in some if similarity[pair] >= 0.8]) for name, side in sides.items()
            }
            for label, some in texts.labelled.items()
            if label != "template"
        },
        "recall_by_similarity": {
            f"{low:.2f}": {
                "pairs": len(within),
                "expected": statistics.mean(SHAPE.probability(similarity[pair]) for pair in within),
                **{name: recall(side, within) for name, side in sides.items()},
            }
            for low, high in pairwise(BINS)
            if (within := [pair for pair in pairs if low <= similarity[pair] < high])
        },
        "template_pairs": len(texts.labelled["template"]),
        "template_pairs_found": {name: found_of(side, texts.labelled["template"]) for name, side in sides.items()},
        "templates_removed": {
            name: len({one for pair in texts.labelled["template"] for one in pair} & set(side.removed))
            for name, side in sides.items()
        },
        **precision(sets, sides),
    }


def of_labelled(texts: Texts, sets: Shingles, sides: Mapping[str, Found]) -> dict[str, Any]:
    """Return recall by label and of all pairs that are similar, and precision."""
    similar = similar_pairs(sets)
    labels: dict[Pair, str] = {pair: label for label, some in texts.labelled.items() for pair in some}
    return {
        "documents": len(texts.texts),
        "labelled_pairs": {label: len(some) for label, some in texts.labelled.items()},
        "found_by_label": {
            name: {label: found_of(side, some) for label, some in texts.labelled.items()}
            for name, side in sides.items()
        },
        "found_without_label": {
            name: sum(labels.get(pair, "non") == "non" for pair in side.pairs) for name, side in sides.items()
        },
        "similar_pairs": len(similar),
        "recall_of_similar_pairs": {name: recall(side, similar) for name, side in sides.items()},
        **precision(sets, sides),
    }


def precision(sets: Shingles, sides: Mapping[str, Found]) -> dict[str, Any]:
    """Return how many pairs are found and documents removed, and which part of either is not similar."""
    found: dict[str, Any] = defaultdict(dict)
    for name, side in sides.items():
        false_pairs = sum(not is_similar(sets[first], sets[second]) for first, second in side.pairs)
        false_removals = sum(not is_similar(sets[one], sets[other]) for one, other in side.removed.items())
        found["found"][name] = len(side.pairs)
        found["precision"][name] = 1 - false_pairs / len(side.pairs) if side.pairs else None
        found["removed"][name] = len(side.removed)
        found["false_removals"][name] = false_removals
        found["false_removal_share"][name] = false_removals / len(side.removed) if side.removed else None
        found["removed_below_050"][name] = sum(
            jaccard(sets[one], sets[other]) < 0.5 for one, other in side.removed.items()
        )
    return dict(found)


def is_similar(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> bool:
    """Whether the true similarity is at or above the threshold, in whole numbers."""
    shared = len(first & second)
    return shared * 10_000 >= THRESHOLD * (len(first) + len(second) - shared) and shared > 0


def similar_pairs(sets: Shingles) -> list[Pair]:
    """Return all pairs that are similar, by the documents of every shingle."""
    holders = defaultdict(list)
    for document, shingles in enumerate(sets):
        for shingle in shingles:
            holders[shingle].append(document)
    together = Counter(pair for documents in holders.values() for pair in combinations(documents, 2))
    return sorted(pair for pair in together if is_similar(sets[pair[0]], sets[pair[1]]))


def recall(side: Found, pairs: Sequence[Pair]) -> float | None:
    """Return the share of pairs that are found; None of none."""
    return found_of(side, pairs) / len(pairs) if pairs else None


def thinned(side: Found, pairs: Sequence[Pair]) -> float | None:
    """Return the share of pairs of which not both stay; None of none."""
    return sum(not side.removed.keys().isdisjoint(pair) for pair in pairs) / len(pairs) if pairs else None


def found_of(side: Found, pairs: Iterable[Pair]) -> int:
    """Return how many of the pairs are found."""
    return sum(pair in side.pairs for pair in pairs)


def paired(outcomes: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Return by how much the first is found more often than the second, and the standard error of that (McNemar)."""
    only_first = sum(first and not second for first, second in outcomes)
    only_second = sum(second and not first for first, second in outcomes)
    num, difference = len(outcomes), only_first - only_second
    return difference / num, math.sqrt(only_first + only_second - difference**2 / num) / num


def failures(result: Mapping[str, Any]) -> list[str]:
    """Say on standard error what must not be, and return it."""
    generated_ = result["generated"]
    said = [
        f"{name}: {part['false_removals'][side]} removals are false ({side})"
        for name, part in result.items()
        if isinstance(part, dict)
        for side in VERIFIED
        if part["false_removals"][side]
    ]
    difference, error = generated_["recall_080_difference"], generated_["recall_080_standard_error"]
    if difference < -MAX_ERRORS * error:
        said.append(f"recall at 0.8 and above is {-difference:.4f} below datatrove's, two errors are {2 * error:.4f}")
    for line in said:
        print(f"missed: {line}", file=sys.stderr)
    return said


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    generated_ = result["generated"]
    names = list(generated_["recall_080"])
    head = "".join(f"{name:>12}" for name in names)
    print(f"{generated_['documents']} generated documents, {generated_['pairs']} pairs; similar: {result['threshold']}")
    print(f"{'recall by Jaccard':22}{'pairs':>8}{'expected':>10}{head}")
    for low, row in generated_["recall_by_similarity"].items():
        print(f"{'from ' + low:22}{row['pairs']:8}{row['expected']:10.4f}" + "".join(f"{row[n]:12.4f}" for n in names))
    row = generated_["recall_080"]
    print(
        f"{'0.80 and above':22}{generated_['pairs_080']:8}{generated_['recall_080_expected']:10.4f}"
        + "".join(f"{row[n]:12.4f}" for n in names)
    )
    row = generated_["thinned_080"]
    print(f"{'  of them not both stay':40}" + "".join(f"{row[n]:12.4f}" for n in names))
    for label, row in generated_["recall_080_by_change"].items():
        print(f"{'  of them ' + label:40}" + "".join(f"{row[n]:12.4f}" for n in names))
    print(
        f"verified - datatrove: {generated_['recall_080_difference']:+.4f}, "
        f"standard error {generated_['recall_080_standard_error']:.4f}"
    )
    print(
        f"\n{'':40}{head}\n{'template pairs found':30}{generated_['template_pairs']:10}"
        + "".join(f"{generated_['template_pairs_found'][n]:12}" for n in names)
    )
    print(f"{'templates removed':40}" + "".join(f"{generated_['templates_removed'][n]:12}" for n in names))
    for name, part in result.items():
        if not isinstance(part, dict):
            continue
        title = f"{name}, {part['documents']} documents"
        print(f"\n{title:40}{head}")
        for what in ("found", "precision", "removed", "false_removals", "false_removal_share", "removed_below_050"):
            print(f"{'  ' + what:40}" + "".join(f"{_cell(part[what][n]):>12}" for n in names))
        for label, num in part.get("labelled_pairs", {}).items():
            found = (part["found_by_label"][n][label] for n in names)
            print(f"{'  found of ' + label:30}{num:10}" + "".join(f"{one:12}" for one in found))
        if "similar_pairs" in part:
            shares = (part["recall_of_similar_pairs"][n] for n in names)
            print(f"{'  found of similar':30}{part['similar_pairs']:10}" + "".join(f"{_cell(n):>12}" for n in shares))
    print("\njudgements of news:", result["news"]["judgements"])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
