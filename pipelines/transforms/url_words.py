"""Words in URLs, as RefinedWeb and datatrove look for them: in three strengths, in one compiled pass.

A **word** of a URL is a run of ASCII letters, digits and bytes beyond ASCII, letters in lower case; all else divides
words. *Strict* words are looked for anywhere in the URL without what divides its words ("click-it" holds "kit"), *hard*
ones among its words, and of the *soft* ones the different words that it has are counted. Entries of the lists are
taken the same way. Strict words are found by an Aho-Corasick automaton, the others by their hashes; linear in the URL.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import RecipeError
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.hashed_list import HashedList, ListArrays, find_span
from pipelines.transforms.lists import list_entries
from pipelines.transforms.words import text_view

MAX_STRICT_BYTES = 1 << 19
"""Of all strict words: the automaton takes 150 bytes for each, 660 if all bytes beyond ASCII occur (350 MB)."""
MAX_SOFT = 16
"""Different soft words that are counted; a URL with more has so many."""

Automaton = tuple[np.ndarray, np.ndarray]
"""The state behind a state and a symbol (int32, (states, symbols)), and a word that ends in each (int32, or -1)."""


class FoundWords(NamedTuple):
    """What each URL holds: int64, shape (rows,) each."""

    strict: np.ndarray
    """Place of a strict word, -1 = none."""
    hard: np.ndarray
    soft: np.ndarray
    """How many different soft words."""


@dataclasses.dataclass(frozen=True, slots=True)
class UrlWords:
    """The three lists."""

    strict: tuple[str, ...]
    automaton: Automaton
    symbols: np.ndarray
    """The symbol of each byte in strict words: uint8, shape (256,)."""
    hard: HashedList
    soft: HashedList

    def find(self, urls: pa.Array) -> FoundWords:
        """Look for the words in a string column; nulls hold none."""
        offsets, data = text_view(urls.cast(pa.large_string()))
        found = np.full((3, len(urls)), -1, np.int64)
        widest = int(np.diff(offsets).max(initial=0))
        _find(
            offsets, data, word_bytes(), self.symbols, self.automaton, self.hard.arrays, self.soft.arrays,
            np.empty(widest, np.uint8), found,
        )  # fmt: skip
        return FoundWords(*found)


@lru_cache(maxsize=8)
def url_words(strict: tuple[GivenFile, ...], hard: tuple[GivenFile, ...], soft: tuple[GivenFile, ...]) -> UrlWords:
    """Read the lists, once a process. Raises `RecipeError` for more strict words than `MAX_STRICT_BYTES`."""
    words = tuple(dict.fromkeys(_words(strict).to_pylist()))
    if sum(len(word.encode()) for word in words) > MAX_STRICT_BYTES:
        raise RecipeError(f"{strict[0].path}: has more than {MAX_STRICT_BYTES} bytes of words\nhint: list fewer")
    symbols, automaton = _automaton([word.encode() for word in words])
    return UrlWords(words, automaton, symbols, HashedList.of(_words(hard)), HashedList.of(_words(soft)))


def _words(files: tuple[GivenFile, ...]) -> pa.Array:
    """Return the entries as words: lower case, without what divides words; those with nothing left are left out."""
    entries = pa.concat_arrays([pa.array([], pa.large_string()), *map(list_entries, files)])
    entries = pc.ascii_lower(pc.replace_substring_regex(entries, r"[\x00-/:-@\[-`{-\x7f]+", ""))
    return entries.filter(pc.not_equal(entries, ""))


@lru_cache(maxsize=1)
def word_bytes() -> np.ndarray:
    """Return each byte of a word, letters in lower case, and 0 for what divides words: uint8, shape (256,)."""
    table = np.zeros(256, np.uint8)
    for byte in (*range(0x30, 0x3A), *range(0x61, 0x7B), *range(0x80, 0x100)):
        table[byte] = byte
    table[0x41:0x5B] = table[0x61:0x7B]
    return table


def _automaton(words: list[bytes]) -> tuple[np.ndarray, Automaton]:
    """Build the automaton, with a symbol for each byte that occurs (0: for all others)."""
    used = sorted(set(b"".join(words)))
    symbols = np.zeros(256, np.uint8)
    symbols[used] = np.arange(1, len(used) + 1)
    children: list[dict[int, int]] = [{}]
    ends = [-1]
    for place, word in enumerate(words):
        state = 0
        for byte in word:
            symbol = int(symbols[byte])
            if symbol not in children[state]:
                children[state][symbol] = len(children)
                children.append({})
                ends.append(-1)
            state = children[state][symbol]
        ends[state] = place
    moves = np.zeros((len(children), len(used) + 1), np.int32)
    fails, queue = [0] * len(children), deque([0])
    while queue:
        state = queue.popleft()
        if ends[state] < 0:
            ends[state] = ends[fails[state]]
        if state:
            moves[state] = moves[fails[state]]
        for symbol, child in children[state].items():
            fails[child] = int(moves[state, symbol]) if state else 0
            moves[state, symbol] = child
            queue.append(child)
    return symbols, (moves, np.array(ends, np.int32))


@numba.njit(nogil=True, cache=True)
def _find(
    offsets: np.ndarray, data: np.ndarray, letters: np.ndarray, symbols: np.ndarray, automaton: Automaton,
    hard: ListArrays, soft: ListArrays, scratch: np.ndarray, found: np.ndarray,
) -> None:  # fmt: skip
    moves, ends = automaton
    seen = np.empty(MAX_SOFT, np.int64)
    for row in range(len(offsets) - 1):
        state, size, num_soft = 0, 0, 0
        for at in range(offsets[row], offsets[row + 1] + 1):
            letter = letters[data[at]] if at < offsets[row + 1] else 0
            if letter:
                scratch[size] = letter
                size += 1
                state = moves[state, symbols[letter]]
                if ends[state] >= 0 and found[0, row] < 0:
                    found[0, row] = ends[state]
                continue
            if size:
                if found[1, row] < 0:
                    found[1, row] = find_span(scratch, 0, size, hard)
                place = find_span(scratch, 0, size, soft) if num_soft < MAX_SOFT else -1
                if place >= 0:
                    known = False
                    for k in range(num_soft):
                        known = known or seen[k] == place
                    if not known:
                        seen[num_soft] = place
                        num_soft += 1
            size = 0
        found[2, row] = num_soft
