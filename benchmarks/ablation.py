"""Do the filters make a better model? The same training on filtered and on unfiltered web pages, scored on clean text.

    python benchmarks/ablation.py [--data ../shared/data] [--work DIR] [--steps N] [--seeds 3] [--json FILE]

The pool is every HTML page of the archives and of the page collections in the data, as all of its text: menus, lists of
links and footers stay, for they are what the filters are there for. One recipe (`headrace run`) keeps the English ones
twice: `unfiltered` is all of them, `filtered` those that `CHAIN` keeps, with its cuts. For each seed and arm `headrace
mix` orders the documents and `headrace train` trains the small mixture of experts for the same steps of the same
number of sequences: one pass over the filtered text at most, so no document is seen twice in either arm. The unfiltered
arm stops as early, and so has seen a random part of the pool, another one for each seed. A seed sets the first weights
and the order of the data.

Held out: encyclopedia, speeches and news that come from no web page, less the documents that share `OVERLAP` words in a
row with a page of the pool. The score is bits per byte, for each source and as their mean. The paired difference is
unfiltered less filtered (above 0: the filters help), with its interval by Student's t, and the smallest effect that so
many seeds could have shown. Nothing is a gate: the figures are what they are.

Everything in the work folder is kept and found again: a run that was stopped goes on, one that was scored is not
repeated. After a change of the filters, name another folder. About half an hour on two cores, nearly all of it the
output matrix of 100,352 rows.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from mixtures.plan import Plan
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.schemes import open_storage
from pipelines.transforms.charset import to_utf8
from pipelines.transforms.extract import HTML_TYPES
from tokenizer.encodings import build_tiktoken, encoding_named
from tokenizer.manifest import Manifest

if TYPE_CHECKING:
    from trainer_bridge.batch import Batch

REPOSITORY = Path(__file__).resolve().parents[1]

CHAIN: list[str | dict[str, Any]] = [
    "gopher_repetition",
    {"gopher_quality": {"fold_stop_word_case": False}},
    {"c4_quality": {"require_end_mark": False}},
    {"fineweb_quality": {"max_duplicate_line_characters": 100, "ignore_trailing_space": False}},
]
"""The filters under test: those of recipes/fineweb.yaml."""

ARMS = ("unfiltered", "filtered")
ARCHIVES = ("**/*.warc", "**/*.warc.gz", "**/*.warc.lz4", "**/*.arc.gz")
PAGES = ("html_gold/scrapinghub/html/*.gz", "html_gold/mozilla_readability/*/source.html",
         "web_text/dclm_quality_labels/html_pages/*")  # fmt: skip
HELD_OUT = {
    "wikipedia": "web_text/wikipedia/wiki_demo.txt",
    "state_union": "web_text/nltk/state_union/*.txt",
    "inaugural": "web_text/nltk/inaugural/*.txt",
    "news": "dedup_gold/lee_similarity/lee_background.cor",
}
"""Files of held-out text: a file of speeches is a document, of the others a line is one."""
LINES = ("wikipedia", "news")
OVERLAP = 13
"""Words in a row that a held-out document must not share with a page, as Brown et al. 2020 (arXiv 2005.14165) ask."""
HELD_OUT_TOKENS = 8_192
"""Of each held-out source, about; all of its text if it has less."""

LENGTH = 256
GLOBAL_BATCH = 4
PROCESSES = 2
"""Runs at once, of one thread each, so that the figures are the same on machines with more cores."""
SETTINGS: dict[str, Any] = {
    # Ten times the usual weight of the load-balance loss, for the reason that benchmarks/learn.py gives.
    "model": {
        "layers": 2, "d_model": 64, "heads": 2, "head_dim": 32, "d_ff": 128, "experts": 8, "aux_weight": 0.1
    },
    "optimizer": {"learning_rate": 0.005, "warmup_steps": 20},
    "micro_batch": GLOBAL_BATCH,
    "checkpoint_every": 1000,
    "threads": 1,
}  # fmt: skip

LEVEL = 0.05
POWER = 0.8


def main() -> None:
    """Make what is missing, train and score every arm and seed, print, and write the result as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY / "../shared/data")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build/ablation", help="folder that all is kept in")
    parser.add_argument("--steps", type=int, help="steps to train; one pass over the filtered text if not given")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm, at least 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: a difference has an interval from 2 seeds on")
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    left_out = write_texts(arguments.data.resolve(), work)
    headrace("run", write_recipe(work), "--output", work / "out", "--workers", PROCESSES)
    result = measure(work, arguments.steps, range(1, arguments.seeds + 1)) | {"held_out_left_out": left_out}
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def headrace(*words: object) -> None:
    """Run a command of this repository's `headrace`, its output shown."""
    command = [sys.executable, "-c", "import headrace; headrace.main()", *(str(word) for word in words)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)


def write_texts(data: Path, work: Path) -> dict[str, int]:
    """Write pool and held-out text as JSON lines; return how many held-out documents were left out as overlapping."""
    texts = sorted({whole_text(page) for page in pages(data)} - {""})
    write_lines(work / "texts/pool.jsonl", texts)
    known = {run for text in texts for run in word_runs(text)}
    left_out = {}
    for name in HELD_OUT:
        documents = list(held_out_documents(data, name))
        clean = [text for text in documents if known.isdisjoint(word_runs(text))]
        left_out[name] = len(documents) - len(clean)
        write_lines(work / f"texts/{name}.jsonl", clean)
    return left_out


def pages(data: Path) -> Iterator[str]:
    """Yield the HTML pages of the archives and of the collections, decoded."""
    source = CommonCrawl(name="pool", include=ARCHIVES)
    storage = open_storage(str(data / "warc"))
    for split in source.splits(storage):
        for batch in source.read(split, storage, BatchLimits(), RawAccount()):
            rows = batch.select(["content", "media_type", "charset", "verdict"]).to_pylist()
            for row in rows:
                if row["content"] is not None and row["verdict"] is None and row["media_type"] in HTML_TYPES:
                    yield bytes(to_utf8(memoryview(row["content"]), row["charset"], None)).decode()
    for path in sorted(path for pattern in PAGES for path in data.glob(pattern)):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        yield bytes(to_utf8(memoryview(content), None, None)).decode()


def whole_text(page: str) -> str:
    """Return all text of a page in its layout, boilerplate included."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    text = extract_plain_text(HTMLTree.parse(page), preserve_formatting=True, main_content=False, alt_texts=False)
    return str(text).replace("\0", "").strip()


def held_out_documents(data: Path, name: str) -> Iterator[str]:
    """Yield the documents of a held-out source."""
    for path in sorted(data.glob(HELD_OUT[name])):
        text = path.read_text(encoding="utf-8", errors="replace")
        documents = text.splitlines() if name in LINES else [text]
        yield from (document.strip() for document in documents if document.strip())


def word_runs(text: str) -> Iterator[int]:
    """Yield a hash of every run of `OVERLAP` words (at white space, lower case; equal within one process only)."""
    words = text.lower().split()
    for first in range(len(words) - OVERLAP + 1):
        yield hash(tuple(words[first : first + OVERLAP]))


def write_lines(path: Path, texts: Iterable[str]) -> None:
    """Write one text a line, unless the file holds just that already."""
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def write_recipe(work: Path) -> Path:
    """Write the recipe of both arms and the held-out sources; return its path."""

    def source(file: str) -> dict[str, Any]:
        return {"reader": "table", "root": "texts", "include": [f"{file}.jsonl"]}

    def pool(*filters: str | dict[str, Any]) -> dict[str, Any]:
        return source("pool") | {"transforms": [{"language": {"languages": ["en"]}}, *filters]}

    recipe = {
        "name": "ablation",
        "sources": {
            "unfiltered": pool(),
            "filtered": pool(*CHAIN),
            **{name: source(name) for name in HELD_OUT},
        },
        "deduplicate": {"exact": "source"},
        "output": {"buckets": 1},
    }
    path = work / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def measure(work: Path, steps: int | None, seeds: Iterable[int]) -> dict[str, Any]:
    """Train and score every arm and seed, and compare."""
    totals = {name: totals_of(work, name) for name in (*ARMS, *HELD_OUT)}
    held_out = make_plan(
        work, "held-out", 0, {name: min(1.0, HELD_OUT_TOKENS / totals[name]["tokens"]) for name in HELD_OUT}
    )
    plans = {(arm, seed): make_plan(work, f"{arm}-{seed}", seed, {arm: 1.0}) for seed in seeds for arm in ARMS}
    whole = min(plan.phases[0].sequences // GLOBAL_BATCH for plan in plans.values())
    steps = min(steps or whole, whole)
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        running = [
            ((arm, seed), pool.submit(train_and_score, work, plan, held_out, f"{arm}-{seed}", seed, steps))
            for (arm, seed), plan in plans.items()
        ]
        runs = [{"arm": arm, "seed": seed, **scores.result()} for (arm, seed), scores in running]
    return {
        "chain": CHAIN,
        "settings": SETTINGS,
        "steps": steps,
        "sequence_length": LENGTH,
        "sequences_a_step": GLOBAL_BATCH,
        "texts": totals,
        "runs": runs,
        "learned": has_learned(runs),
        "differences": {name: compare(runs, name) for name in ("mean", *HELD_OUT)},
    }


def totals_of(work: Path, source: str) -> dict[str, int]:
    """Return what a source's run kept."""
    totals = Manifest.load(manifest_of(work, source)).totals
    return {"documents": totals.documents, "tokens": totals.tokens, "text_bytes": totals.text_bytes}


def manifest_of(work: Path, source: str) -> Path:
    """Return where the manifest of a source's token shards lies."""
    return work / f"out/tokens/{source}/manifest.json"


def make_plan(work: Path, name: str, seed: int, epochs: dict[str, float]) -> Plan:
    """Return the plan of these sources, each for its own (fraction of an) epoch."""
    mixture = {
        "name": name,
        "seed": seed,
        "classes": {source: {"epochs": f"{amount:.6f}"} for source, amount in epochs.items()},
        "sources": {
            source: {"class": source, "manifests": [str(manifest_of(work, source).relative_to(work))]}
            for source in epochs
        },
        "phases": [{"length": LENGTH, "global_batch": GLOBAL_BATCH}],
    }
    path = work / f"mixture-{name}.yaml"
    path.write_text(yaml.safe_dump(mixture, sort_keys=False))
    headrace("mix", path, "--output", work / f"plan-{name}.json", "--workers", 1)
    return Plan.load(work / f"plan-{name}.json")


def train_and_score(work: Path, plan: Plan, held_out: Plan, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Return the scores of one run, which is trained unless this very run was scored before."""
    settings = SETTINGS | {"steps": steps, "seed": seed}
    mark = hashlib.sha256(repr((plan.fingerprint, held_out.fingerprint, settings)).encode()).hexdigest()[:16]
    folder = work / f"runs/{name}-{mark}"
    target = folder / "scores.json"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        headrace("train", folder / "train.yaml", "--plan", plan.path, "--output", folder)
        scores = score(folder, plan, held_out)
        attempt = target.with_suffix(".partial")
        attempt.write_text(json.dumps(scores))
        attempt.rename(target)
        shutil.rmtree(folder / "checkpoints")  # 150 MB each, and the scores are what they were for
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def score(folder: Path, plan: Plan, held_out: Plan) -> dict[str, Any]:
    """Return the figures of a trained model on the held-out text, nats a token and bits a byte."""
    import torch  # here, for it takes a second or two, and finished runs are only read

    from trainer_bridge.moe.checkpoint import load_checkpoint, newest_checkpoint
    from trainer_bridge.moe.evaluate import count_targets, evaluate, unigram_loss
    from trainer_bridge.moe.model import Decoder
    from trainer_bridge.moe.optimizer import make_optimizer
    from trainer_bridge.moe.settings import load_settings
    from trainer_bridge.moe.train import CHECKPOINTS, reproducible
    from trainer_bridge.stream import Stream

    settings = load_settings(folder / "train.yaml")
    model = Decoder(settings.model.config(plan.tokenizer.vocabulary), torch.Generator().manual_seed(settings.seed))
    checkpoint, _ = newest_checkpoint(folder / CHECKPOINTS)
    assert checkpoint is not None, "the training has ended, with a checkpoint"
    load_checkpoint(checkpoint, model, make_optimizer(model, settings.optimizer))
    stream = Stream(held_out)
    batch = stream.batch(0, len(stream))
    with reproducible(settings.threads):
        found = evaluate(model, held_out, batch, settings.micro_batch)
    counted = {name: count_text(held_out, batch, place) for place, name in enumerate(held_out.sources)}
    bits = {
        name: found.sources[name] / math.log(2) * targets / num_bytes for name, (targets, num_bytes) in counted.items()
    }
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [entry for entry in steps if entry["kind"] == "step"]
    return {
        "step": checkpoint.step,
        "tokens": sum(entry["tokens"] for entry in steps),
        "seconds": sum(entry["seconds"] for entry in steps),
        "first_training_loss": steps[0]["loss"],
        "last_training_loss": float(np.mean([entry["loss"] for entry in steps[-50:]])),
        "held_out_loss": found.loss,
        "held_out_targets": found.targets,
        "unigram_loss": unigram_loss(count_targets(plan), batch),
        "unigram_entropy": entropy(batch),
        "loss": found.sources,
        "bits_per_byte": bits | {"mean": float(np.mean(list(bits.values())))},
    }


def count_text(plan: Plan, batch: Batch, source: int) -> tuple[int, int]:
    """Return the targets of a source in a batch, and the bytes of text that they stand for (end-of-text has none)."""
    rows = batch.pieces.source[batch.pieces.offsets[:-1]] == source
    labels = batch.labels[rows][batch.weights[rows] > 0]
    encoding = encoding_named(plan.tokenizer.name)
    text = labels[labels < encoding.ordinary]
    sizes = [len(token) for token in build_tiktoken(encoding).decode_tokens_bytes(text.tolist())]
    return len(labels), sum(sizes)


def entropy(batch: Batch) -> float:
    """Return the entropy (nats) of the labels' own distribution: a unigram model that knew the held-out text."""
    _, counts = np.unique(batch.labels[batch.weights > 0], return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def has_learned(runs: list[dict[str, Any]]) -> bool:
    """Whether every model is better on held-out text than the unigram model of its arm's text."""
    return all(run["held_out_loss"] < run["unigram_loss"] for run in runs)


def compare(runs: list[dict[str, Any]], source: str) -> dict[str, Any]:
    """Return the paired difference in bits per byte, unfiltered less filtered, over the seeds of `runs`."""
    bits = {(run["arm"], run["seed"]): run["bits_per_byte"][source] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    return statistics([bits["unfiltered", seed] - bits["filtered", seed] for seed in seeds])


def statistics(differences: list[float]) -> dict[str, Any]:
    """Return mean, 95% interval by Student's t, and the smallest effect that could have been shown.

    That is the true difference at which the two-sided t test of these many pairs at level `LEVEL` comes out significant
    with probability `POWER`, if single differences spread as these do: the noncentrality of Student's t at which this
    is so, times the standard error (Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", chapter 2).
    """
    from scipy import optimize, stats

    number, freedom = len(differences), len(differences) - 1
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    error = spread / math.sqrt(number)
    bound = float(stats.t.ppf(1 - LEVEL / 2, freedom))

    def lacking(noncentrality: float) -> float:  # the other tail is below 1e-6 there
        return float(stats.nct.sf(bound, freedom, noncentrality)) - POWER

    return {
        "differences": differences,
        "mean": mean,
        "standard_deviation": spread,
        "degrees_of_freedom": freedom,
        "low": mean - bound * error,
        "high": mean + bound * error,
        "smallest_effect": float(optimize.brentq(lacking, 0, 4 * bound)) * error,
    }


def verdict(found: dict[str, Any]) -> str:
    """Say a comparison in words."""
    if found["low"] > 0:
        return "filtered is better"
    if found["high"] < 0:
        return "unfiltered is better"
    return "no difference can be shown"


def show(result: dict[str, Any]) -> None:
    """Print the texts, the runs, the differences and what they say."""
    for name, totals in result["texts"].items():
        print(f"{name:12}{totals['documents']:>8,} documents{totals['tokens']:>12,} tokens")
    print(f"\n{result['steps']} steps; bits a byte of held-out text (lower is better)")
    print(f"{'arm':12}{'seed':>4}{'tokens':>10}{'seconds':>9}" + "".join(f"{name:>13}" for name in ("mean", *HELD_OUT)))
    for run in result["runs"]:
        bits = "".join(f"{run['bits_per_byte'][name]:>13.4f}" for name in ("mean", *HELD_OUT))
        print(f"{run['arm']:12}{run['seed']:>4}{run['tokens']:>10,}{run['seconds']:>9.0f}{bits}")
    print(
        "\nheld-out loss, nats a token, all sources together: the model, a unigram model of the arm's text, the entropy"
    )
    for run in result["runs"]:
        figures = (run["held_out_loss"], run["unigram_loss"], run["unigram_entropy"])
        print(f"{run['arm']:12}{run['seed']:>4}" + "".join(f"{figure:>10.4f}" for figure in figures))
    if not result["learned"]:
        print("not every model is better than the unigram model: these runs are too short to say anything")
    freedom = result["differences"]["mean"]["degrees_of_freedom"]
    print(f"\nunfiltered less filtered, paired by seed; 95% intervals by Student's t with {freedom} degrees of freedom")
    for name, found in result["differences"].items():
        print(
            f"{name:12}{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]: {verdict(found)}; an effect "
            f"below {found['smallest_effect']:.4f} would have been missed more than one time in five"
        )


if __name__ == "__main__":
    main()
