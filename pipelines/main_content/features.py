"""What the block classifier looks at: 160 numbers for each block of a page, all integers or quotients of them.

Trees do not care for scale, so no logarithms are taken: IEEE additions, multiplications and divisions in a fixed order
give the same numbers on every machine. Sums over any node come from running sums over blocks (see `scan.py`); so the
cost is linear in blocks and nodes. What matters most is where a block stands: the four containers around it, the best
container by the score of readability (Arc90; commas and length of paragraphs, given to their parents), the smallest
that holds most of the good text, and the other blocks with the same path of tags and classes.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.main_content import scan as s
from pipelines.main_content import tags as t
from pipelines.main_content.class_words import GROUPS, NUM_GROUPS

GOOD_WORDS = 10
"""A block with as many words, less than half of its characters in links, is good text."""
NUM_LEVELS = 4
"""Containers around a block that are looked at: its node, and the next ones that hold more blocks."""
LARGE_SHARE = 0.4
"""A node with this share of the page's words is large: its class words describe the page rather than the block."""

MAX_PROBES = 32
"""Places of a hash table that are looked at. Who makes a page can make hashes collide; then equal things count as
different ones, and the work stays linear."""

NUM_AROUND = len(t.ANCESTORS)

OWN = (
    "words chars word_length link_share anchors commas commas_per_word stops stops_per_word digit_share upper_share "
    "ends_in_stop starts_upper bold_share breaks images signs unspaced_share heading kind is_link level"
)
NEIGHBOUR = "words link_share stops kind"
NEIGHBOURS = (-1, 1, -2, 2)
WINDOWS = (3, 8)
POSITION = (
    "place words_before blocks_from_headline words_from_headline title_share blocks_to_end good_after equal_texts"
)
LEVEL = "words link_share page_share blocks position good_share words_per_block stops_per_word"
BEST = "score steps inside page_share position behind dominant_half dominant_most most_page_share half_steps"
PATH = "blocks words words_per_block link_share good_share_of_page first spread good_share"
PAGE = "words blocks good_share link_share unspaced_share commas_per_word"

FEATURES = (
    *(f"own.{name}" for name in OWN.split()),
    *(f"around.{name}" for name in t.ANCESTORS),
    *(f"small.{name}" for name in GROUPS),
    *(f"large.{name}" for name in GROUPS),
    *(f"neighbour{offset:+d}.{name}" for offset in NEIGHBOURS for name in NEIGHBOUR.split()),
    *(f"window{size}.{name}" for size in WINDOWS for name in ("words", "link_share")),
    *(f"position.{name}" for name in POSITION.split()),
    *(f"level{level}.{name}" for level in range(1, NUM_LEVELS + 1) for name in LEVEL.split()),
    *(f"best.{name}" for name in BEST.split()),
    *(f"path.{name}" for name in PATH.split()),
    *(f"page.{name}" for name in PAGE.split()),
)
"""The columns of the first stage, in the order in which `block_features` writes them."""

CONTEXT_OFFSETS = (-1, 1, -2, 2, -3, 3)
CONTEXT = (
    "p",
    *(f"p{offset:+d}" for offset in CONTEXT_OFFSETS),
    *(f"window{size}" for size in WINDOWS),
    "path",
    *(f"level{level}.{name}" for level in range(1, NUM_LEVELS + 1) for name in ("mean", "mass")),
    "inside_best", "best_f1", "before", "after", "page", "f1",
)  # fmt: skip
"""The columns that the second stage adds: what the first one thought of the block and of those around it."""

P_ONE = 1 << 16
"""A probability of 1."""


def block_features(scan: s.Scan, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 of shape (blocks, columns), its first ones filled as `FEATURES` says, and the blocks' clusters.

    A cluster (int32, shape (blocks,)) is the same number for blocks with the same path.
    """
    num_blocks = len(scan.blocks)
    features = np.zeros((num_blocks, columns), np.float32)
    clusters = np.zeros(num_blocks, np.int32)
    if num_blocks:
        start, end = int(scan.state[s.TITLE_SPAN]), int(scan.state[s.TITLE_SPAN + 1])
        title = scan.page[start:end] if start >= 0 else scan.page[:0]
        _features(
            scan.text, scan.blocks, scan.nodes, scan.paths, title, int(scan.state[s.HEADLINE]), features, clusters
        )
    return features, clusters


@numba.njit(nogil=True, cache=True, inline="always")
def _ratio(part: float, whole: float) -> np.float32:
    """Return part / whole, 0 where there is no whole."""
    return np.float32(part / whole) if whole > 0 else np.float32(0)


@numba.njit(nogil=True, cache=True)
def _features(
    text: np.ndarray, blocks: np.ndarray, nodes: np.ndarray, paths: np.ndarray, title: np.ndarray, headline: int,
    out: np.ndarray, clusters: np.ndarray,
) -> None:  # fmt: skip
    """Fill `out` and `clusters`."""
    num_blocks = len(blocks)
    sums = running_sums(blocks)
    outer = outer_nodes(nodes)
    small, large = class_masks(nodes, sums)
    scores = _container_scores(blocks, nodes, sums)
    best = _best_container(nodes, scores)
    top_scores = _highest_scores_around(nodes, scores)
    half = _dominant(nodes, sums, 50)
    most = _dominant(nodes, sums, 80)
    cluster_sums = _cluster(blocks, paths, clusters)
    equal = _equal_texts(text, blocks)
    titled = _title_words(text, blocks, title)
    for row in range(num_blocks):
        node = blocks[row, s.NODE]
        column = _own(blocks, nodes, row, out, 0)
        column = _bits(nodes[node, s.AROUND], NUM_AROUND, row, out, column)
        column = _bits(small[node], NUM_GROUPS, row, out, column)
        column = _bits(large[node], NUM_GROUPS, row, out, column)
        for offset in NEIGHBOURS:
            column = _neighbour(blocks, nodes, row + offset, row, out, column)
        for size in WINDOWS:
            column = _window(sums, row, size, out, column)
        column = _position(sums, row, headline, titled[row], equal[row], out, column)
        column = _levels(nodes, outer, sums, node, row, out, column)
        column = _best(nodes, sums, node, best, half, most, top_scores, scores, row, out, column)
        column = _path(cluster_sums, clusters[row], sums, row, out, column)
        _page(sums, blocks, row, out, column)


WORDS, CHARS, LINK_CHARS, GOOD, STOPS, COMMAS, UNSPACED = range(7)
SUMS = 7
"""Columns of running sums over blocks (int64, shape (blocks + 1, SUMS))."""


@numba.njit(nogil=True, cache=True)
def running_sums(blocks: np.ndarray) -> np.ndarray:
    """Return the sums over the blocks before each one."""
    sums = np.zeros((len(blocks) + 1, SUMS), np.int64)
    for row in range(len(blocks)):
        words, chars, link_chars = blocks[row, s.WORDS], blocks[row, s.CHARS], blocks[row, s.LINK_CHARS]
        is_good = words >= GOOD_WORDS and 2 * link_chars < chars
        sums[row + 1, WORDS] = sums[row, WORDS] + words
        sums[row + 1, CHARS] = sums[row, CHARS] + chars
        sums[row + 1, LINK_CHARS] = sums[row, LINK_CHARS] + link_chars
        sums[row + 1, GOOD] = sums[row, GOOD] + (words if is_good else 0)
        sums[row + 1, STOPS] = sums[row, STOPS] + blocks[row, s.STOPS]
        sums[row + 1, COMMAS] = sums[row, COMMAS] + blocks[row, s.COMMAS]
        sums[row + 1, UNSPACED] = sums[row, UNSPACED] + blocks[row, s.UNSPACED]
    return sums


@numba.njit(nogil=True, cache=True)
def outer_nodes(nodes: np.ndarray) -> np.ndarray:
    """Return for each node the next one around it that holds more blocks, itself where there is none."""
    outer = np.zeros(len(nodes), np.int32)
    for node in range(1, len(nodes)):
        parent = nodes[node, s.PARENT]
        is_larger = nodes[parent, s.FIRST] < nodes[node, s.FIRST] or nodes[parent, s.LAST] > nodes[node, s.LAST]
        outer[node] = parent if is_larger or parent == 0 else outer[parent]
    return outer


@numba.njit(nogil=True, cache=True, inline="always")
def _total(sums: np.ndarray, column: int, nodes: np.ndarray, node: int) -> int:
    """Return a sum over a node's blocks."""
    return sums[nodes[node, s.LAST], column] - sums[nodes[node, s.FIRST], column]


@numba.njit(nogil=True, cache=True)
def class_masks(nodes: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class words of the small and of the large nodes around each node (itself too)."""
    small, large = np.zeros(len(nodes), np.int32), np.zeros(len(nodes), np.int32)
    limit = LARGE_SHARE * sums[-1, WORDS]
    for node in range(1, len(nodes)):
        parent, mask = nodes[node, s.PARENT], nodes[node, s.MASK]
        is_large = _total(sums, WORDS, nodes, node) >= limit
        small[node] = small[parent] | (0 if is_large else mask)
        large[node] = large[parent] | (mask if is_large else 0)
    return small, large


@numba.njit(nogil=True, cache=True)
def _container_scores(blocks: np.ndarray, nodes: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Return readability's score of every node: what its paragraphs give it, less the share of links."""
    scores = np.zeros(len(nodes), np.float64)
    for row in range(len(blocks)):
        if blocks[row, s.WORDS] < GOOD_WORDS // 2:
            continue
        node = blocks[row, s.NODE]
        tag = nodes[node, s.TAG]
        container = nodes[node, s.PARENT] if node > 0 and tag in (t.P, t.LI, t.BLOCKQUOTE, t.PRE, t.TD) else node
        score = 1.0 + blocks[row, s.COMMAS] + min(blocks[row, s.CHARS] // 100, 3)
        scores[container] += score
        if container > 0:
            scores[nodes[container, s.PARENT]] += score / 2
    for node in range(len(nodes)):
        chars = _total(sums, CHARS, nodes, node)
        if chars > 0:
            scores[node] *= 1.0 - _total(sums, LINK_CHARS, nodes, node) / chars
    return scores


@numba.njit(nogil=True, cache=True)
def _best_container(nodes: np.ndarray, scores: np.ndarray) -> int:
    """Return the node with the highest score, the first of equals."""
    best = 0
    for node in range(len(nodes)):
        if scores[node] > scores[best]:
            best = node
    return best


@numba.njit(nogil=True, cache=True)
def _highest_scores_around(nodes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return for each node the highest score of itself and the nodes around it."""
    highest = scores.copy()
    for node in range(1, len(nodes)):
        highest[node] = max(scores[node], highest[nodes[node, s.PARENT]])
    return highest


@numba.njit(nogil=True, cache=True)
def _dominant(nodes: np.ndarray, sums: np.ndarray, percent: int) -> int:
    """Return the innermost node with at least `percent` of the page's good words (the last such one in the page)."""
    good, found = sums[-1, GOOD], 0
    for node in range(1, len(nodes)):
        parent = nodes[node, s.PARENT]
        if parent == found and good > 0 and _total(sums, GOOD, nodes, node) * 100 >= good * percent:
            found = node
    return found


@numba.njit(nogil=True, cache=True, inline="always")
def _holds(nodes: np.ndarray, node: int, row: int) -> bool:
    """Whether a node holds a block."""
    return nodes[node, s.FIRST] <= row < nodes[node, s.LAST]


CLUSTER_BLOCKS, CLUSTER_WORDS, CLUSTER_CHARS, CLUSTER_LINK_CHARS, CLUSTER_GOOD, CLUSTER_FIRST, CLUSTER_LAST = range(7)


@numba.njit(nogil=True, cache=True)
def _cluster(blocks: np.ndarray, paths: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Number the paths of the blocks into `clusters`, in order of appearance; return sums over each cluster."""
    size = 16
    while size < 2 * len(blocks):
        size *= 2
    slots, sums = np.full(size, -1, np.int64), np.zeros((len(blocks), 7), np.int64)
    keys = np.zeros(len(blocks), np.int64)
    num = 0
    for row in range(len(blocks)):
        path = paths[blocks[row, s.NODE]]
        place = (path ^ (path >> 29)) & (size - 1)
        cluster = num
        for _ in range(MAX_PROBES):
            if slots[place] < 0:
                slots[place], keys[num] = num, path
                break
            if keys[slots[place]] == path:
                cluster = slots[place]
                break
            place = (place + 1) & (size - 1)
        if cluster == num:
            sums[num, CLUSTER_FIRST] = row
            num += 1
        clusters[row] = cluster
        words, chars, link_chars = blocks[row, s.WORDS], blocks[row, s.CHARS], blocks[row, s.LINK_CHARS]
        sums[cluster, CLUSTER_BLOCKS] += 1
        sums[cluster, CLUSTER_WORDS] += words
        sums[cluster, CLUSTER_CHARS] += chars
        sums[cluster, CLUSTER_LINK_CHARS] += link_chars
        sums[cluster, CLUSTER_GOOD] += words if words >= GOOD_WORDS and 2 * link_chars < chars else 0
        sums[cluster, CLUSTER_LAST] = row
    return sums[:num]


@numba.njit(nogil=True, cache=True)
def _equal_texts(text: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return for each block how many earlier ones have the same text (by a 64-bit hash), int32."""
    size = 16
    while size < 2 * len(blocks):
        size *= 2
    keys, counts = np.zeros(size, np.int64), np.zeros(size, np.int32)
    equal = np.zeros(len(blocks), np.int32)
    for row in range(len(blocks)):
        value = 1
        for at in range(blocks[row, s.START], blocks[row, s.END]):
            value = (value ^ text[at]) * t.FNV_PRIME
        value = value if value else 1
        place = (value ^ (value >> 29)) & (size - 1)
        for _ in range(MAX_PROBES):
            if keys[place] == 0 or keys[place] == value:
                keys[place] = value
                equal[row] = counts[place]
                counts[place] += 1
                break
            place = (place + 1) & (size - 1)
    return equal


_TITLE_SLOTS = 256
_MAX_TITLE_WORDS = 100


@numba.njit(nogil=True, cache=True)
def _title_words(text: np.ndarray, blocks: np.ndarray, title: np.ndarray) -> np.ndarray:
    """Return for each block the share of its first words that are words of the page's title, float32."""
    slots = np.zeros(_TITLE_SLOTS, np.int64)
    shares = np.zeros(len(blocks), np.float32)
    at, num = 0, 0
    while at < len(title) and num < _MAX_TITLE_WORDS:
        value, at = _word(title, at, len(title))
        if value:
            num += 1
            place = (value ^ (value >> 23)) & (_TITLE_SLOTS - 1)
            while slots[place] != 0 and slots[place] != value:
                place = (place + 1) & (_TITLE_SLOTS - 1)
            slots[place] = value
    for row in range(len(blocks)):
        at, end, words, hits = blocks[row, s.START], blocks[row, s.END], 0, 0
        while at < end and words < _MAX_TITLE_WORDS and num:
            value, at = _word(text, at, end)
            if value:
                words += 1
                place = (value ^ (value >> 23)) & (_TITLE_SLOTS - 1)
                while slots[place] != 0 and slots[place] != value:
                    place = (place + 1) & (_TITLE_SLOTS - 1)
                hits += slots[place] == value
        shares[row] = _ratio(hits, words)
    return shares


@numba.njit(nogil=True, cache=True)
def _word(data: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """Return the hash (ASCII letters lower-cased) of the word at `at`, 0 where there is none, and the place behind."""
    value = 0
    while at < end:
        byte = data[at]
        is_upper = 0x41 <= byte <= 0x5A
        if not (byte >= 0x80 or is_upper or 0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39):
            return value, at + 1
        value = ((value if value else 1) ^ (byte | (0x20 if is_upper else 0))) * t.FNV_PRIME
        at += 1
    return value, at


@numba.njit(nogil=True, cache=True)
def block_kind(tag: int) -> int:
    """Return a small number for what kind of block an element is."""
    if tag == t.P:
        return 1
    if tag == t.LI:
        return 2
    if tag == t.TD or tag == t.TH:
        return 3
    if tag == t.PRE or tag == t.LISTING:
        return 4
    if tag == t.DT or tag == t.DD:
        return 5
    if tag == t.FIGCAPTION or tag == t.CAPTION:
        return 6
    if tag == t.BLOCKQUOTE:
        return 7
    if t.H1 <= tag <= t.H6:
        return 8
    return 9 if tag == t.BUTTON else 0


@numba.njit(nogil=True, cache=True)
def _own(blocks: np.ndarray, nodes: np.ndarray, row: int, out: np.ndarray, column: int) -> int:
    """Write what a block itself is like."""
    block = blocks[row]
    words, chars, tag = block[s.WORDS], block[s.CHARS], nodes[block[s.NODE], s.TAG]
    out[row, column] = words
    out[row, column + 1] = chars
    out[row, column + 2] = _ratio(chars, words)
    out[row, column + 3] = _ratio(block[s.LINK_CHARS], chars)
    out[row, column + 4] = block[s.ANCHORS]
    out[row, column + 5] = block[s.COMMAS]
    out[row, column + 6] = _ratio(block[s.COMMAS], words)
    out[row, column + 7] = block[s.STOPS]
    out[row, column + 8] = _ratio(block[s.STOPS], words)
    out[row, column + 9] = _ratio(block[s.DIGITS], chars)
    out[row, column + 10] = _ratio(block[s.UPPERS], chars)
    out[row, column + 11] = block[s.ENDS_IN_STOP]
    out[row, column + 12] = block[s.STARTS_UPPER]
    out[row, column + 13] = _ratio(block[s.BOLD_CHARS], chars)
    out[row, column + 14] = block[s.BREAKS]
    out[row, column + 15] = min(block[s.IMAGES], 20)
    out[row, column + 16] = block[s.SIGNS]
    out[row, column + 17] = _ratio(block[s.UNSPACED], chars)
    out[row, column + 18] = tag - t.H1 + 1 if t.H1 <= tag <= t.H6 else 0
    out[row, column + 19] = block_kind(tag)
    out[row, column + 20] = block[s.LINK_CHARS] == chars
    out[row, column + 21] = nodes[block[s.NODE], s.LEVEL]
    return column + 22


@numba.njit(nogil=True, cache=True)
def _bits(mask: int, num: int, row: int, out: np.ndarray, column: int) -> int:
    """Write the lowest bits of a mask, one a column."""
    for bit in range(num):
        out[row, column + bit] = (mask >> bit) & 1
    return column + num


@numba.njit(nogil=True, cache=True)
def _neighbour(blocks: np.ndarray, nodes: np.ndarray, other: int, row: int, out: np.ndarray, column: int) -> int:
    """Write what another block is like, -1 where the page ends before."""
    if 0 <= other < len(blocks):
        out[row, column] = blocks[other, s.WORDS]
        out[row, column + 1] = _ratio(blocks[other, s.LINK_CHARS], blocks[other, s.CHARS])
        out[row, column + 2] = blocks[other, s.STOPS]
        out[row, column + 3] = block_kind(nodes[blocks[other, s.NODE], s.TAG])
    else:
        out[row, column : column + 4] = -1
    return column + 4


@numba.njit(nogil=True, cache=True)
def _window(sums: np.ndarray, row: int, size: int, out: np.ndarray, column: int) -> int:
    """Write what the blocks up to `size` before and behind are like, this one too."""
    first, last = max(row - size, 0), min(row + size + 1, len(sums) - 1)
    out[row, column] = _ratio(sums[last, WORDS] - sums[first, WORDS], last - first)
    out[row, column + 1] = _ratio(
        sums[last, LINK_CHARS] - sums[first, LINK_CHARS], sums[last, CHARS] - sums[first, CHARS]
    )
    return column + 2


@numba.njit(nogil=True, cache=True)
def _position(
    sums: np.ndarray, row: int, headline: int, title_share: float, equal: int, out: np.ndarray, column: int
) -> int:
    """Write where in the page a block is."""
    num_blocks = len(sums) - 1
    out[row, column] = _ratio(row, num_blocks)
    out[row, column + 1] = _ratio(sums[row, WORDS], sums[-1, WORDS])
    out[row, column + 2] = row - headline if headline >= 0 else -10_000
    out[row, column + 3] = sums[row, WORDS] - sums[headline, WORDS] if 0 <= headline < num_blocks else -100_000
    out[row, column + 4] = title_share
    out[row, column + 5] = num_blocks - row
    out[row, column + 6] = _ratio(sums[-1, GOOD] - sums[row + 1, GOOD], sums[-1, GOOD])
    out[row, column + 7] = equal
    return column + 8


@numba.njit(nogil=True, cache=True)
def _levels(
    nodes: np.ndarray, outer: np.ndarray, sums: np.ndarray, node: int, row: int, out: np.ndarray, column: int
) -> int:
    """Write what the containers around a block are like, from the innermost."""
    for _ in range(NUM_LEVELS):
        first, last = nodes[node, s.FIRST], nodes[node, s.LAST]
        words, chars = _total(sums, WORDS, nodes, node), _total(sums, CHARS, nodes, node)
        out[row, column] = words
        out[row, column + 1] = _ratio(_total(sums, LINK_CHARS, nodes, node), chars)
        out[row, column + 2] = _ratio(words, sums[-1, WORDS])
        out[row, column + 3] = last - first
        out[row, column + 4] = _ratio(sums[row, WORDS] - sums[first, WORDS], words)
        out[row, column + 5] = _ratio(_total(sums, GOOD, nodes, node), words)
        out[row, column + 6] = _ratio(words, last - first)
        out[row, column + 7] = _ratio(_total(sums, STOPS, nodes, node), words)
        column += 8
        node = outer[node]
    return column


@numba.njit(nogil=True, cache=True)
def _best(
    nodes: np.ndarray, sums: np.ndarray, node: int, best: int, half: int, most: int, top_scores: np.ndarray,
    scores: np.ndarray, row: int, out: np.ndarray, column: int,
) -> int:  # fmt: skip
    """Write how a block stands to the best container and to those that hold most of the good text."""
    words = _total(sums, WORDS, nodes, best)
    out[row, column] = _ratio(top_scores[node], scores[best])
    out[row, column + 1] = _steps_to(nodes, node, best, row)
    out[row, column + 2] = _holds(nodes, best, row)
    out[row, column + 3] = _ratio(words, sums[-1, WORDS])
    out[row, column + 4] = _ratio(sums[row, WORDS] - sums[nodes[best, s.FIRST], WORDS], words)
    out[row, column + 5] = row >= nodes[best, s.LAST]
    out[row, column + 6] = _holds(nodes, half, row)
    out[row, column + 7] = _holds(nodes, most, row)
    out[row, column + 8] = _ratio(_total(sums, WORDS, nodes, most), sums[-1, WORDS])
    out[row, column + 9] = _steps_to(nodes, node, half, row)
    return column + 10


@numba.njit(nogil=True, cache=True)
def _steps_to(nodes: np.ndarray, node: int, container: int, row: int) -> int:
    """Return how many nodes up `container` is, or (below 0) how many up it must go itself to hold the block."""
    if _holds(nodes, container, row):
        return max(nodes[node, s.LEVEL] - nodes[container, s.LEVEL], 0)
    steps = 0
    while container > 0 and not _holds(nodes, container, row):
        container = nodes[container, s.PARENT]
        steps -= 1
    return steps


@numba.njit(nogil=True, cache=True)
def _path(cluster_sums: np.ndarray, cluster: int, sums: np.ndarray, row: int, out: np.ndarray, column: int) -> int:
    """Write what the blocks with the same path are like."""
    one = cluster_sums[cluster]
    num_blocks, words = one[CLUSTER_BLOCKS], one[CLUSTER_WORDS]
    out[row, column] = num_blocks
    out[row, column + 1] = words
    out[row, column + 2] = _ratio(words, num_blocks)
    out[row, column + 3] = _ratio(one[CLUSTER_LINK_CHARS], one[CLUSTER_CHARS])
    out[row, column + 4] = _ratio(one[CLUSTER_GOOD], sums[-1, GOOD])
    out[row, column + 5] = _ratio(one[CLUSTER_FIRST], len(sums) - 1)
    out[row, column + 6] = _ratio(one[CLUSTER_LAST] - one[CLUSTER_FIRST] + 1, num_blocks)
    out[row, column + 7] = _ratio(one[CLUSTER_GOOD], words)
    return column + 8


@numba.njit(nogil=True, cache=True)
def _page(sums: np.ndarray, blocks: np.ndarray, row: int, out: np.ndarray, column: int) -> None:
    """Write what the whole page is like."""
    words = sums[-1, WORDS]
    out[row, column] = words
    out[row, column + 1] = len(blocks)
    out[row, column + 2] = _ratio(sums[-1, GOOD], words)
    out[row, column + 3] = _ratio(sums[-1, LINK_CHARS], sums[-1, CHARS])
    out[row, column + 4] = _ratio(sums[-1, UNSPACED], sums[-1, CHARS])
    out[row, column + 5] = _ratio(sums[-1, COMMAS], words)


@numba.njit(nogil=True, cache=True)
def add_context(
    blocks: np.ndarray, nodes: np.ndarray, clusters: np.ndarray, p: np.ndarray, out: np.ndarray, column: int
) -> None:
    """Write the columns `CONTEXT` from `column` on. `p` is int64, shape (blocks,), in 1/`P_ONE`."""
    num_blocks = len(blocks)
    outer = outer_nodes(nodes)
    words, mass = np.zeros(num_blocks + 1, np.int64), np.zeros(num_blocks + 1, np.int64)
    cluster_words, cluster_mass = np.zeros(num_blocks, np.int64), np.zeros(num_blocks, np.int64)
    for row in range(num_blocks):
        weight: int = blocks[row, s.WORDS]
        words[row + 1] = words[row] + weight
        mass[row + 1] = mass[row] + weight * p[row]
        cluster_words[clusters[row]] += weight
        cluster_mass[clusters[row]] += weight * p[row]
    best, best_f1 = best_by_expected_f1(nodes, words, mass)
    total = mass[-1]
    f1, _ = expected_f1(p, words)
    for row in range(num_blocks):
        at = column
        out[row, at] = p[row]
        at += 1
        for offset in CONTEXT_OFFSETS:
            out[row, at] = p[row + offset] if 0 <= row + offset < num_blocks else -1
            at += 1
        for size in WINDOWS:
            first, last = max(row - size, 0), min(row + size + 1, num_blocks)
            out[row, at] = _ratio(mass[last] - mass[first], words[last] - words[first])
            at += 1
        out[row, at] = _ratio(cluster_mass[clusters[row]], cluster_words[clusters[row]])
        at += 1
        node = blocks[row, s.NODE]
        for _ in range(NUM_LEVELS):
            first, last = nodes[node, s.FIRST], nodes[node, s.LAST]
            out[row, at] = _ratio(mass[last] - mass[first], words[last] - words[first])
            out[row, at + 1] = _ratio(mass[last] - mass[first], total)
            at += 2
            node = outer[node]
        out[row, at] = _holds(nodes, best, row)
        out[row, at + 1] = best_f1
        out[row, at + 2] = _ratio(mass[row], total)
        out[row, at + 3] = _ratio(total - mass[row + 1], total)
        out[row, at + 4] = _ratio(total, words[-1])
        out[row, at + 5] = f1


@numba.njit(nogil=True, cache=True)
def best_by_expected_f1(nodes: np.ndarray, words: np.ndarray, mass: np.ndarray) -> tuple[int, float]:
    """Return the node whose whole text has the best expected F1, the innermost of equals, and that F1."""
    best, best_f1 = 0, 0.0
    total = mass[-1] / P_ONE
    for node in range(len(nodes)):
        first, last = nodes[node, s.FIRST], nodes[node, s.LAST]
        whole = words[last] - words[first] + total
        f1 = 2.0 * ((mass[last] - mass[first]) / P_ONE) / whole if whole > 0 else 0.0
        if f1 >= best_f1:
            best, best_f1 = node, f1
    return best, best_f1


@numba.njit(nogil=True, cache=True)
def expected_f1(p: np.ndarray, words: np.ndarray) -> tuple[float, int]:
    """Return the best expected F1 of any choice of blocks, and the lowest probability of that choice.

    With weights w, a choice S has 2 sum_S(w p) / (sum_S(w) + sum(w p)) in expectation, and the best one takes blocks by
    falling probability (Lewis 1995); `words` are running sums.
    """
    order = np.argsort(-p, kind="mergesort")
    total = 0.0
    for row in range(len(p)):
        total += (words[row + 1] - words[row]) * (p[row] / P_ONE)
    best, least, taken, hits = 0.0, P_ONE + 1, 0.0, 0.0
    for row in order:
        weight = words[row + 1] - words[row]
        taken += weight
        hits += weight * (p[row] / P_ONE)
        f1 = 2.0 * hits / (taken + total) if taken + total > 0 else 0.0
        if f1 > best:
            best, least = f1, p[row]
    return best, least
