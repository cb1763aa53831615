"""`contamination` on real evaluation sets and web text: recall of planted questions, false hits, and speed.

    python benchmarks/contamination.py [--data ../shared/data] [--items 4000] [--json FILE]

Questions of the sets are planted into real English documents, as they are and edited (`EDITS`), and looked for: recall
by class and by the question's words, at the level of documents. Then the documents alone: each hit is printed with its
evidence, to be judged by reading. The same is done by the rule "any n-gram in common" (13 words as in GPT-3, Brown et
al. 2020, appendix C; 8 words), on the same items and words. Seconds are CPU seconds of this process, best of five.
"""

from __future__ import annotations

import argparse
import bz2
import gc
import html
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from english_texts import read_english_texts

from pipelines.contamination.build import build_index
from pipelines.contamination.index import ContaminationIndex
from pipelines.contamination.items import Item, read_items
from pipelines.contamination.prepared import THRESHOLD, Prepared, prepare
from pipelines.contamination.search import END, ITEM, ROW, SCORE, START, search
from pipelines.near_duplicates.shingles import code_point_forms, shingle_sets
from pipelines.transforms.words import text_view

DATA = Path(__file__).resolve().parents[1] / "../shared/data"
ROUNDS = 5
SEED = 7
WORDS = ((8, 9), (10, 12), (13, 19), (20, 49), (50, 2_048))
"""Classes of length, in words of the question."""
REPLACED = 10
"""One word in so many is replaced."""
NGRAMS = (13, 8)


def main() -> None:
    """Measure, print, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--items", type=int, default=4_000, help="questions that are planted")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    start = time.process_time()
    items = list(read_sets(arguments.data / "benchmarks"))
    index, counts = build_index(items, [])
    packed = index.pack()
    built = time.process_time() - start
    names, questions = index.items.column("item"), index.items.column("question")
    opened = best(lambda: prepare(names, questions, THRESHOLD))
    prepared = prepare(names, questions, THRESHOLD)
    print(f"{len(index.items)} items of {len(items)}, {len(prepared.words)} words, {len(packed)} bytes")
    print(f"built in {built:.1f} s, opened in {opened:.2f} s (CPU)")
    for name, count in counts.items():
        print(f"  {name:<24} {count}")
    documents = {**read_english_texts(arguments.data), **wikipedia(arguments.data)}
    known = {num: shingle_sets(questions, "word", num)[1] for num in NGRAMS}
    result: dict[str, Any] = {
        "items": len(index.items), "bytes": len(packed), "build_cpu_s": built, "open_cpu_s": opened,
        "recall": recall(index, prepared, list(documents.values()), arguments.items, known),
        "documents": len(documents),
        "hits": hits(index, prepared, documents),
        "instruction_hits": hits(index, prepared, instructions(arguments.data)),
        "ngram_hits": {num: int(shared(known[num], column(documents.values()), num).sum()) for num in known},
        "speed": speed(prepared, documents),
    }  # fmt: skip
    print("documents with an n-gram in common:", result["ngram_hits"])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def read_sets(folder: Path) -> Iterator[tuple[str, Item]]:
    """Yield the items of all evaluation sets that are here, each with the name of its set."""
    for file in sorted(folder.rglob("*.jsonl*")):
        name = ("decon_" if "decon" in file.parts else "") + re.sub(r"(-\d+)?\.jsonl(\.gz)?$", "", file.name).lower()
        for item in read_items(name, file)[0]:
            yield name, item


def wikipedia(data: Path) -> dict[str, str]:
    """Return the English Wikipedia articles that are here, with their markup."""
    folder = data / "web_text/wikipedia"
    texts = {
        f"wikipedia/wiki_demo.txt:{number}": line
        for number, line in enumerate((folder / "wiki_demo.txt").read_text(encoding="utf-8").split("\n"), start=1)
        if line.strip()
    }
    for file in sorted(folder.glob("enwiki*.bz2")):
        pages = re.findall(r"(?s)<text[^>]*>(.*?)</text>", bz2.decompress(file.read_bytes()).decode())
        texts |= {f"wikipedia/{file.name}:{place}": html.unescape(page) for place, page in enumerate(pages)}
    return texts


def instructions(data: Path) -> dict[str, str]:
    """Return the instruction data that are here, a document for each record: its strings, line by line."""
    texts = {}
    for file in sorted((data / "instructions").rglob("*.json*")):
        if file.name == "dataset_info.json":
            continue
        content = file.read_text(encoding="utf-8")
        rows = (
            json.loads(content) if content.startswith("[") else map(json.loads, filter(str.strip, content.split("\n")))
        )
        for place, row in enumerate(rows):
            texts[f"{file.relative_to(data)}:{place}"] = "\n".join(strings(row))
    return texts


def strings(value: Any) -> Iterator[str]:
    """Yield the strings of a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def column(texts: Any) -> pa.Array:
    """Return texts as a column."""
    return pa.array(list(texts), pa.large_string())


def case(text: str, draw: random.Random) -> str:
    """Change the case of all letters."""
    return draw.choice((str.upper, str.lower, str.title, str.swapcase))(text)


def punctuation(text: str, draw: random.Random) -> str:
    """Drop or change every mark that is not between two letters or digits, and break the lines elsewhere."""
    marks = re.compile(r"(?<!\w)[^\w\s]|[^\w\s](?!\w)")
    return marks.sub(lambda _: draw.choice(("", " ", ",", " -", "...", "\n")), text).replace("\n", " \n ")


def words(text: str, draw: random.Random) -> str:
    """Replace one word in ten (rounded down) by a word of other texts."""
    parts = re.split(r"([^\W_]+)", text)
    places = range(1, len(parts), 2)
    for place in draw.sample(places, len(places) // REPLACED):
        parts[place] = draw.choice(VOCABULARY)
    return "".join(parts)


def verbatim(text: str, draw: random.Random) -> str:
    """Leave it as it is."""
    return text


def everything(text: str, draw: random.Random) -> str:
    """Change case, punctuation and words."""
    return case(punctuation(words(text, draw), draw), draw)


VOCABULARY: list[str] = []
EDITS: dict[str, tuple[Callable[[str, random.Random], str], bool]] = {
    "verbatim": (verbatim, False), "case": (case, False), "punctuation": (punctuation, False),
    "one word in ten": (words, False), "embedded": (verbatim, True), "embedded, all edits": (everything, True),
}  # fmt: skip
"""What is done to a question, and whether it is put into the middle of a line of prose or on a line of its own."""


def recall(
    index: ContaminationIndex, prepared: Prepared, hosts: list[str], number: int, known: dict[int, np.ndarray]
) -> dict[str, Any]:
    """Return for each kind of edit how many questions were planted, and found, by class of length.

    `known` are the n-grams of all questions, by n: what "any n-gram in common" finds is told too.
    """
    draw = random.Random(SEED)
    VOCABULARY.extend(word for text in hosts[:400] for word in re.findall(r"[a-z]{3,}", text))
    lengths = np.diff(prepared.offsets)
    chosen = draw.sample(np.flatnonzero(prepared.min_hits > 0).tolist(), number)
    questions = index.items.column("question").take(pa.array(chosen)).to_pylist()
    result = {}
    for name, (edit, inline) in EDITS.items():
        texts = column(planted(edit(question, draw), draw.choice(hosts), inline, draw) for question in questions)
        found = search(*text_view(texts), code_point_forms(), prepared)
        caught = np.zeros(number, bool)
        caught[found[:, ROW]] = True
        by_ngram = {f"{num}-gram": float(shared(known[num], texts, num).mean()) for num in known}
        classes = {}
        for low, high in WORDS:
            own = (lengths[chosen] >= low) & (lengths[chosen] <= high)
            classes[f"{low}-{high}"] = [int(own.sum()), int(caught[own].sum())]
        result[name] = {"planted": number, "found": int(caught.sum()), "by_words": classes, **by_ngram}
        row = "  ".join(f"{key}: {got}/{all_}" for key, (all_, got) in classes.items())
        print(f"{name:<20} {caught.mean():.4f}   {row}   {by_ngram}", flush=True)
    return result


def planted(question: str, host: str, inline: bool, draw: random.Random) -> str:
    """Return the document with the question at a random place."""
    parts = re.split(r"( )" if inline else r"(\n)", host)
    place = draw.randrange(0, len(parts), 2)
    space = " " if inline else "\n"
    return "".join([*parts[:place], space, question, space, *parts[place:]])


def shared(known: np.ndarray, texts: pa.Array, ngram: int) -> np.ndarray:
    """Return which texts have one of the n-grams of words: bool, shape (texts,)."""
    offsets, hashes = shingle_sets(texts, "word", ngram)
    sums = np.concatenate([[0], np.cumsum(np.isin(hashes, known))])
    return sums[offsets[1:]] > sums[offsets[:-1]]


def hits(index: ContaminationIndex, prepared: Prepared, documents: dict[str, str]) -> list[dict[str, Any]]:
    """Return and print every hit in documents in which nothing was planted."""
    found = search(*text_view(column(documents.values())), code_point_forms(), prepared)
    places, texts, result = list(documents), list(documents.values()), []
    for hit in found.tolist():
        item = index.items.slice(hit[ITEM], 1).to_pylist()[0]
        text = texts[hit[ROW]].encode()[hit[START] : hit[END]].decode()
        result.append(
            {
                "document": places[hit[ROW]], "start": hit[START], "item": item["item"], "score": hit[SCORE],
                "words": int(np.diff(prepared.offsets)[hit[ITEM]]), "text": text, "question": item["question"],
            }
        )  # fmt: skip
    print(f"{len(result)} hits in {len(set(found[:, ROW].tolist()))} of {len(documents)} documents")
    for one in result:
        print(f"  {one['document']} at {one['start']}: {one['item']} {one['score']} ({one['words']} words)")
        print(f"    text:     {' '.join(one['text'].split())[:200]}")
        print(f"    question: {' '.join(one['question'].split())[:200]}")
    return result


def speed(prepared: Prepared, documents: dict[str, str]) -> dict[str, dict[str, float]]:
    """Return microseconds a document and MB a CPU second, of C4 and of all documents."""
    c4 = [text for name, text in documents.items() if name.startswith("c4_sample")]
    result = {}
    for name, texts in (("c4", c4), ("all", list(documents.values()))):
        offsets, data = text_view(column(texts))
        seconds = best(partial(search, offsets, data, code_point_forms(), prepared))
        result[name] = {
            "documents": len(texts), "mean_bytes": len(data) / len(texts),
            "us_per_document": seconds / len(texts) * 1e6, "mb_per_cpu_second": len(data) / 1e6 / seconds,
        }  # fmt: skip
        print(name, {key: round(value, 1) for key, value in result[name].items()})
    return result


def best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the least CPU seconds of some rounds, after one that loads and compiles."""
    work()
    seconds = []
    for _ in range(rounds):
        gc.collect()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
