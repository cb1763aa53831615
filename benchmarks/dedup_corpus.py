"""Texts for the benchmarks of deduplication: a corpus with copies, pairs with known changes, and templates.

All are made of the sentences of the real English texts (`english_texts`), the same for the same seed, and none is a
document of its own right:

- A document is a text of log-normal length (`MEAN_BYTES`), put together of runs of 1 to 4 sentences; one of ten
  (`WINDOW_SHARE`) is a window of a real text instead, so that windows overlap each other: the text's own repeats, with
  chains A-B-C in which A and C share little.
- In a corpus every tenth document is an exact copy of an earlier one and every tenth an edited copy (1 to 5% of the
  words changed, inserted, deleted or moved). As the real texts are few, each block of `BLOCK` documents exchanges
  words (runs of a to z) by a permutation within words of one length: bytes and repeats of every block are alike, but
  the texts of two blocks are strange to each other. Without this a larger corpus would be of other texts: fuller.
- A pair is an original and the same with a share of its words changed, inserted, deleted or moved. The share is chosen
  for a Jaccard similarity of word 5-grams drawn evenly between `LEAST_JACCARD` and 1, as if changed words were far
  apart; what it really is must be counted.
- A family of a template has the same boilerplate, `BOILERPLATE` of the words, around contents that have nothing in
  common: these are no duplicates.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from english_texts import read_english_texts

from pipelines.transforms.words import UNSPACED, code_point_classes

BLOCK = 50_000
"""Documents between two exchanges of words."""
MEAN_BYTES, SPREAD, LEAST_BYTES, MOST_BYTES = 1_280, 0.7, 200, 20_000
"""Of a document's length: the mean and the deviation of the logarithm of a log-normal distribution, and its bounds."""
WINDOW_SHARE = 0.1
EDITED_SHARES = (0.01, 0.05)
"""Least and largest share of words that an edited copy differs in."""
LEAST_JACCARD = 0.45
"""Of pairs; below 0.5, so that the pairs from 0.5 on are no edge of the range."""
BOILERPLATE = 0.6
NGRAM = 5
ROW_GROUP = 10_000

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile("[a-z]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """An original and what has become of it: which change, of what share of its words."""

    original: str
    changed: str
    change: str
    share: float


@dataclasses.dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences of the real texts, one after the other, and where each text begins (and the last one ends)."""

    sentences: tuple[str, ...]
    starts: tuple[int, ...]

    @classmethod
    def read(cls, data: Path) -> Sentences:
        """Read the distinct English documents of the shared data, in order of their names."""
        distinct = dict.fromkeys(read_english_texts(data).values())
        texts = [[part for part in _SENTENCE_END.split(text) if part] for text in distinct]
        return cls(tuple(part for text in texts for part in text), tuple(accumulate(map(len, texts), initial=0)))

    def reworded(self, rng: random.Random) -> Sentences:
        """Return the same with words exchanged for words of the same length."""
        by_length = defaultdict(list)
        for word in sorted({word for sentence in self.sentences for word in _WORD.findall(sentence)}):
            by_length[len(word)].append(word)
        other = {}
        for words in by_length.values():
            other.update(zip(words, rng.sample(words, len(words)), strict=True))
        replaced = (_WORD.sub(lambda found: other[found.group()], sentence) for sentence in self.sentences)
        return Sentences(tuple(replaced), self.starts)

    def window(self, rng: random.Random, num_bytes: int) -> str:
        """Return so many bytes or more of one text, from a sentence that is drawn on; less where the text ends."""
        text = rng.randrange(len(self.starts) - 1)
        first, end = rng.randrange(self.starts[text], self.starts[text + 1]), self.starts[text + 1]
        return " ".join(self._take(first, end, num_bytes))

    def patched(self, rng: random.Random, num_bytes: int) -> str:
        """Return a text of so many bytes or more, of runs of 1 to 4 sentences from anywhere."""
        parts: list[str] = []
        missing = num_bytes
        while missing > 0:
            first = rng.randrange(len(self.sentences))
            run = self.sentences[first : first + rng.randint(1, 4)]
            parts.extend(run)
            missing -= sum(len(sentence) + 1 for sentence in run)
        return " ".join(parts)

    def _take(self, first: int, end: int, num_bytes: int) -> Iterator[str]:
        for sentence in self.sentences[first:end]:
            if num_bytes <= 0:
                return
            num_bytes -= len(sentence) + 1
            yield sentence


def make_documents(sentences: Sentences, num: int, seed: int = 0) -> Iterator[str]:
    """Yield so many documents: of ten, eight new ones, one exact copy and one edited copy of some earlier one."""
    rng = random.Random(seed)
    earlier: list[str] = []
    of_block = sentences
    for number in range(num):
        if number % BLOCK == 0 and number:
            of_block = sentences.reworded(rng)
        if number % 10 == 4:
            text = rng.choice(earlier)
        elif number % 10 == 9:
            change = rng.choice(list(CHANGES.values()))
            words = rng.choice(earlier).split()
            text = " ".join(change(rng, words, rng.uniform(*EDITED_SHARES), of_block))
        else:
            text = new_document(rng, of_block)
        earlier.append(text)
        yield text


def new_document(rng: random.Random, sentences: Sentences) -> str:
    """Return a window or a text that is put together, of `LEAST_BYTES` characters or more."""
    median = MEAN_BYTES / math.exp(SPREAD**2 / 2)
    num_bytes = int(min(max(rng.lognormvariate(math.log(median), SPREAD), LEAST_BYTES), MOST_BYTES))
    make, text = sentences.window if rng.random() < WINDOW_SHARE else sentences.patched, ""
    while len(text) < LEAST_BYTES:
        text = make(rng, num_bytes)
    return text


def write_documents(path: Path, texts: Iterator[str], first: int = 0) -> int:
    """Write a Parquet file with the columns `id` (d0, d1, ...) and `text`; returns the bytes of UTF-8 of all texts."""
    num_bytes, schema = 0, pa.schema([("id", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(texts, ROW_GROUP)):
            ids = [f"d{first + number}" for number in range(len(group))]
            writer.write_table(pa.table([ids, group], schema=schema))
            first += len(group)
            num_bytes += sum(len(text.encode()) for text in group)
    return num_bytes


def make_pairs(sentences: Sentences, num: int, seed: int = 0) -> Iterator[Pair]:
    """Yield so many pairs, all changes in turn."""
    rng = random.Random(seed)
    for number in range(num):
        change = list(CHANGES)[number % len(CHANGES)]
        words = new_document(rng, sentences).split()
        share = share_for(rng.uniform(LEAST_JACCARD, 1), change)
        yield Pair(" ".join(words), " ".join(CHANGES[change](rng, words, share, sentences)), change, share)


def share_for(jaccard: float, change: str) -> float:
    """Return the share of words that brings two texts to a Jaccard similarity, if changed words are far apart.

    Of n shingles on each side `common` n remain, which is a Jaccard similarity J of common / (2 - common). A word that
    is changed, inserted or deleted breaks NGRAM shingles, one that is moved NGRAM where it was and NGRAM - 1 where it
    comes to; (1 - share)^broken = common.
    """
    common = 2 * jaccard / (1 + jaccard)
    broken = 2 * NGRAM - 1 if change == "moved" else NGRAM
    return 1 - common ** (1 / broken)


def make_templates(sentences: Sentences, num_families: int, size: int, seed: int = 0) -> Iterator[list[str]]:
    """Yield families of so many texts that share a head, a middle and a foot."""
    rng = random.Random(seed)
    for _ in range(num_families):
        shared = sentences.patched(rng, MEAN_BYTES).split()
        per_gap = round(len(shared) * (1 - BOILERPLATE) / BOILERPLATE / 2)
        third = len(shared) // 3
        head, middle, foot = shared[:third], shared[third : 2 * third], shared[2 * third :]
        family = []
        for _ in range(size):
            own = sentences.patched(rng, 20 * per_gap).split()[: 2 * per_gap]
            family.append(" ".join([*head, *own[:per_gap], *middle, *own[per_gap:], *foot]))
        yield family


def _changed(rng: random.Random, words: Sequence[str], share: float, sentences: Sentences) -> list[str]:
    return [_any_word(rng, sentences) if rng.random() < share else word for word in words]


def _inserted(rng: random.Random, words: Sequence[str], share: float, sentences: Sentences) -> list[str]:
    result = []
    for word in words:
        if rng.random() < share:
            result.append(_any_word(rng, sentences))
        result.append(word)
    return result


def _deleted(rng: random.Random, words: Sequence[str], share: float, sentences: Sentences) -> list[str]:
    return [word for word in words if rng.random() >= share]


def _moved(rng: random.Random, words: Sequence[str], share: float, sentences: Sentences) -> list[str]:
    moves = [rng.random() < share for _ in words]
    result = [word for word, moves_ in zip(words, moves, strict=True) if not moves_]
    for word in (word for word, moves_ in zip(words, moves, strict=True) if moves_):
        result.insert(rng.randint(0, len(result)), word)
    return result


def _any_word(rng: random.Random, sentences: Sentences) -> str:
    return rng.choice(rng.choice(sentences.sentences).split())


CHANGES: dict[str, Callable[[random.Random, Sequence[str], float, Sentences], list[str]]] = {
    "changed": _changed,
    "inserted": _inserted,
    "deleted": _deleted,
    "moved": _moved,
}
"""What can become of each word of a text, with a probability."""


class _Forms(dict[int, str]):
    """What each code point is in the normal form of `pipelines.near_duplicates.shingles`, for `str.translate`."""

    def __missing__(self, point: int) -> str:
        letter, kind = chr(point), unicodedata.category(chr(point))[0]
        if kind not in "LNM":
            form = " "
        else:
            bases = _without_marks(_without_marks(letter).lower())
            if len(bases) == 1 and unicodedata.category(bases)[0] in "LN":
                form = bases
            else:
                lower = letter.lower()
                form = "" if kind == "M" or not bases else lower if len(lower) == 1 else letter
            if form and (code_point_classes()[[point, ord(form)]] & UNSPACED).any():
                form = f" {form} "
        self[point] = form
        return form


_FORMS = _Forms()


def _without_marks(letters: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", letters) if unicodedata.category(part)[0] != "M")


def word_shingles(text: str, ngram: int = NGRAM) -> frozenset[tuple[str, ...]]:
    """Return the set of runs of so many words of the normal form; of fewer words, one run of all.

    It is what true Jaccard similarity is counted on, in plain Python: no hash and no kernel is part of it.
    """
    words = text.translate(_FORMS).split()
    if not words:
        return frozenset()
    return frozenset(tuple(words[at : at + ngram]) for at in range(max(len(words) - ngram, 0) + 1))


def jaccard(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    """Return the Jaccard similarity of two sets; 0 if one is empty."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared) if shared else 0.0
