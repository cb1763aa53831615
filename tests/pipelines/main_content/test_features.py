"""Features by hand on a small page, sums and choices against plain Python, every column written and none twice."""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.main_content import features as f
from pipelines.main_content import scan as s
from pipelines.main_content import tags as t

SCANNER = s.Scanner()


def scanned(page: str) -> s.Scan:
    """Return the scan of a page."""
    return SCANNER.scan(np.frombuffer(page.encode(), np.uint8))


def named(page: str) -> list[dict[str, float]]:
    """Return the features of every block by name."""
    rows, _ = f.block_features(scanned(page), len(f.FEATURES))
    return [dict(zip(f.FEATURES, row.tolist(), strict=True)) for row in rows]


GOOD = "one two, three four five six seven eight nine ten."
PAGE = (
    "<title>One big dog</title><nav class=menu><a href=x>Home</a><p><a href=y>About us</a></nav>"
    f"<div class='article sidebar2'><h1>Big dog</h1><p>{GOOD}</p><p>{GOOD}</p></div><p>(c) end"
)
"""Blocks: 0 Home, 1 About us, 2 the headline, 3 and 4 ten words each, 5 two words: 27 words. Characters but for white
space: 4, 7, 6, 41, 41, 6 = 105."""


def test_names_are_told_apart() -> None:
    names = [*f.FEATURES, *f.CONTEXT]
    assert len(set(f.FEATURES)) == len(f.FEATURES)
    assert len(set(f.CONTEXT)) == len(f.CONTEXT)
    assert len(names) < 1 << 15, "a tree holds a column as int16"


def test_every_column_is_written_and_none_behind() -> None:
    scan = scanned(PAGE)
    out = np.full((len(scan.blocks), len(f.FEATURES) + len(f.CONTEXT) + 8), np.nan, np.float32)
    clusters = np.zeros(len(scan.blocks), np.int32)
    f._features(scan.text, scan.blocks, scan.nodes, scan.paths, scan.page[:0], 2, out, clusters)
    assert not np.isnan(out[:, : len(f.FEATURES)]).any()
    assert np.isnan(out[:, len(f.FEATURES) :]).all()
    p = np.full(len(scan.blocks), f.P_ONE // 2, np.int64)
    f.add_context(scan.blocks, scan.nodes, clusters, p, out, len(f.FEATURES))
    behind = len(f.FEATURES) + len(f.CONTEXT)
    assert not np.isnan(out[:, :behind]).any()
    assert np.isnan(out[:, behind:]).all()


def test_own_features_and_neighbours() -> None:
    home, about, headline, first, second, end = named(PAGE)
    assert [block["own.words"] for block in named(PAGE)] == [1, 2, 2, 10, 10, 2]
    assert [block["own.chars"] for block in named(PAGE)] == [4, 7, 6, 41, 41, 6]
    assert (home["own.link_share"], home["own.is_link"], home["own.anchors"]) == (1, 1, 0)
    assert (headline["own.heading"], headline["own.kind"], headline["own.starts_upper"]) == (1, 8, 1)
    assert (first["own.commas"], first["own.stops"], first["own.ends_in_stop"], first["own.level"]) == (1, 1, 1, 2)
    assert first["own.word_length"] == np.float32(4.1)
    assert (end["own.link_share"], end["own.signs"], end["own.kind"]) == (0, 0, 1)
    assert (about["around.nav"], about["around.p"], first["around.p"], first["around.nav"]) == (1, 1, 1, 0)
    assert home["neighbour-1.words"] == home["neighbour-2.kind"] == end["neighbour+1.stops"] == -1
    assert (headline["neighbour-1.link_share"], headline["neighbour+1.words"], headline["neighbour+1.kind"]) == (
        1,
        10,
        1,
    )
    assert home["window3.words"] == np.float32(15 / 4)
    assert home["window3.link_share"] == np.float32(11 / 58)
    assert second["window8.words"] == np.float32(27 / 6)


def test_class_words_of_small_and_large_nodes_are_told_apart() -> None:
    """22 of the page's 27 words lie in the article: large. The menu holds 3: small."""
    home, _, _, first, _, end = named(PAGE)
    assert (home["small.nav"], home["large.nav"]) == (1, 0)
    assert (first["small.article"], first["large.article"], first["large.side"]) == (0, 1, 1)
    assert (end["small.article"], end["large.article"]) == (0, 0)


def test_position_of_a_block() -> None:
    rows = named(PAGE)
    assert [row["position.blocks_from_headline"] for row in rows] == [-2, -1, 0, 1, 2, 3]
    assert [row["position.words_from_headline"] for row in rows] == [-3, -2, 0, 2, 12, 22]
    assert [row["position.blocks_to_end"] for row in rows] == [6, 5, 4, 3, 2, 1]
    assert [row["position.equal_texts"] for row in rows] == [0, 0, 0, 0, 1, 0]
    assert [row["position.good_after"] for row in rows] == [1, 1, 1, 0.5, 0, 0]
    assert rows[3]["position.place"] == 0.5
    assert rows[3]["position.words_before"] == np.float32(5 / 27)
    assert {row["position.blocks_from_headline"] for row in named("<p>x<p>y")} == {-10_000}


def test_title_share_is_the_share_of_words_that_are_the_titles() -> None:
    assert [row["position.title_share"] for row in named(PAGE)] == pytest.approx([0, 0, 1, 0.1, 0.1, 0])
    assert [row["position.title_share"] for row in named("<p>x")] == [0]


def test_containers_around_a_block() -> None:
    """Around block 3: its paragraph, the article (22 words in 3 blocks), then the page (27 in 6)."""
    row = named(PAGE)[3]
    assert [row[f"level{level}.words"] for level in (1, 2, 3, 4)] == [10, 22, 27, 27]
    assert [row[f"level{level}.blocks"] for level in (1, 2, 3, 4)] == [1, 3, 6, 6]
    assert row["level2.page_share"] == np.float32(22 / 27)
    assert row["level2.position"] == np.float32(2 / 22)
    assert row["level2.good_share"] == np.float32(20 / 22)
    assert row["level3.link_share"] == np.float32(11 / 105)
    assert row["level2.words_per_block"] == np.float32(22 / 3)


def test_the_best_container() -> None:
    """Each good paragraph gives 1 + a comma + 0 = 2 to the article, half of it to the page; About us gives nothing."""
    rows = named(PAGE)
    assert [row["best.inside"] for row in rows] == [0, 0, 1, 1, 1, 0]
    assert [row["best.behind"] for row in rows] == [0, 0, 0, 0, 0, 1]
    assert [row["best.steps"] for row in rows] == [-1, -1, 1, 1, 1, -1]
    assert rows[3]["best.page_share"] == np.float32(22 / 27)
    assert rows[3]["best.score"] == 1
    assert rows[0]["best.score"] == pytest.approx(2 * (1 - 11 / 105) / 4)


def test_blocks_with_one_path() -> None:
    rows = named(PAGE)
    assert [row["path.blocks"] for row in rows] == [1, 1, 1, 2, 2, 1]
    assert [row["path.words"] for row in rows] == [1, 2, 2, 20, 20, 2]
    assert (rows[4]["path.first"], rows[4]["path.spread"], rows[4]["path.good_share_of_page"]) == (0.5, 1, 1)
    _, clusters = f.block_features(scanned(PAGE), len(f.FEATURES))
    assert clusters.tolist() == [0, 1, 2, 3, 3, 4]


def test_the_page_as_a_whole() -> None:
    rows = named(PAGE)
    assert {row["page.words"] for row in rows} == {27}
    assert {row["page.blocks"] for row in rows} == {6}
    assert {row["page.good_share"] for row in rows} == {float(np.float32(20 / 27))}
    assert {row["page.commas_per_word"] for row in rows} == {float(np.float32(2 / 27))}


def test_a_page_without_blocks_has_no_rows() -> None:
    rows, clusters = f.block_features(scanned("<div></div>"), len(f.FEATURES))
    assert rows.shape == (0, len(f.FEATURES))
    assert clusters.shape == (0,)


PAGES = st.recursive(
    st.sampled_from(["a", "b c, d. ", "<br>", "<br><br>", "<a href=x>link</a>", f"<p>{GOOD}</p>", "<li>x"]),
    lambda inner: st.builds(
        lambda tag, parts: f"<{tag} class=c{len(parts)}>{''.join(parts)}</{tag}>",
        st.sampled_from(["div", "ul", "article", "table", "td", "section"]),
        st.lists(inner, max_size=5),
    ),
    max_leaves=25,
)


@settings(deadline=None)
@given(PAGES)
def test_sums_and_containers_of_any_page(page: str) -> None:
    scan = scanned(page)
    blocks, nodes = scan.blocks, scan.nodes
    sums = f.running_sums(blocks)
    columns = [s.WORDS, s.CHARS, s.LINK_CHARS]
    assert sums[1:, [f.WORDS, f.CHARS, f.LINK_CHARS]].tolist() == np.cumsum(blocks[:, columns], axis=0).tolist()
    good = [block[s.WORDS] for block in blocks if block[s.WORDS] >= 10 and 2 * block[s.LINK_CHARS] < block[s.CHARS]]
    assert sums[-1, f.GOOD] == sum(good)
    outer = f.outer_nodes(nodes)
    for node in range(len(nodes)):
        around = node
        while around > 0 and (nodes[around, s.FIRST], nodes[around, s.LAST]) == (
            nodes[node, s.FIRST], nodes[node, s.LAST],
        ):  # fmt: skip
            around = int(nodes[around, s.PARENT])
        assert outer[node] == around


@settings(deadline=None)
@given(PAGES, st.sampled_from([50, 80]))
def test_the_dominant_container_of_any_page(page: str, percent: int) -> None:
    """Innermost of those that hold the share and whose parents all do."""
    scan = scanned(page)
    sums, nodes = f.running_sums(scan.blocks), scan.nodes
    shares = [int(sums[node[s.LAST], f.GOOD] - sums[node[s.FIRST], f.GOOD]) * 100 for node in nodes]
    enough = [sums[-1, f.GOOD] > 0 and share >= int(sums[-1, f.GOOD]) * percent for share in shares]
    found = 0
    while True:
        inner = [node for node in range(1, len(nodes)) if nodes[node, s.PARENT] == found and enough[node]]
        if not inner:
            break
        found = inner[0]
    assert f._dominant(nodes, sums, percent) == found


WEIGHTED = st.lists(st.tuples(st.integers(0, f.P_ONE), st.integers(0, 30)), min_size=1, max_size=8)


@settings(deadline=None)
@given(WEIGHTED)
def test_best_expected_f1_is_that_of_all_choices(blocks: list[tuple[int, int]]) -> None:
    p, weights = np.array([one[0] for one in blocks]), [one[1] for one in blocks]
    words = np.cumsum([0, *weights])
    total = sum(weight * share / f.P_ONE for share, weight in blocks)
    best = 0.0
    for size in range(1, len(blocks) + 1):
        for choice in itertools.combinations(blocks, size):
            taken = sum(weight for _, weight in choice)
            hits = sum(weight * share / f.P_ONE for share, weight in choice)
            best = max(best, 2 * hits / (taken + total) if taken + total else 0.0)
    found, least = f.expected_f1(p, words)
    assert found == pytest.approx(best)
    # the rule that `choose` follows takes the same blocks: those of at least half of the best
    by_rule = [(share, weight) for share, weight in blocks if share and share / f.P_ONE >= found / 2]
    hits, taken = sum(w * share / f.P_ONE for share, w in by_rule), sum(w for _, w in by_rule)
    assert (2 * hits / (taken + total) if taken + total else 0.0) == pytest.approx(best)
    assert least > 0


@settings(deadline=None)
@given(PAGES, st.randoms(use_true_random=False))
def test_the_best_node_is_the_innermost_of_those_with_the_best_expected_f1(page: str, random: Random) -> None:
    scan = scanned(page)
    weights = scan.blocks[:, s.WORDS].astype(np.int64)
    p = np.array([random.randint(0, f.P_ONE) for _ in weights], np.int64)
    words, mass = np.concatenate([[0], np.cumsum(weights)]), np.concatenate([[0], np.cumsum(weights * p)])
    total = mass[-1] / f.P_ONE
    values = []
    for node in scan.nodes:
        taken = int(words[node[s.LAST]] - words[node[s.FIRST]])
        hits = int(mass[node[s.LAST]] - mass[node[s.FIRST]]) / f.P_ONE
        values.append(2 * hits / (taken + total) if taken + total else 0.0)
    best, best_f1 = f.best_by_expected_f1(scan.nodes, words, mass)
    assert best_f1 == max(values)
    assert best == max(node for node, value in enumerate(values) if value == max(values))


def test_context_of_a_small_page() -> None:
    """p = 1/2, 1, 0 for three blocks of 1, 2 and 1 words: masses 1/2, 2, 0 of 4 words."""
    scan = scanned("<div>a<p>b c</p></div>d")
    p = np.array([f.P_ONE // 2, f.P_ONE, 0], np.int64)
    out = np.zeros((3, len(f.CONTEXT)), np.float32)
    f.add_context(scan.blocks, scan.nodes, np.array([0, 1, 0], np.int32), p, out, 0)
    rows = [dict(zip(f.CONTEXT, row.tolist(), strict=True)) for row in out]
    assert [row["p"] for row in rows] == p.tolist()
    assert [row["p-1"] for row in rows] == [-1, f.P_ONE // 2, f.P_ONE]
    assert [row["p+2"] for row in rows] == [0, -1, -1]
    assert [row["window3"] / f.P_ONE for row in rows] == [0.625] * 3
    assert [row["path"] / f.P_ONE for row in rows] == [0.25, 1, 0.25]
    assert [row["level1.mean"] / f.P_ONE for row in rows] == pytest.approx([2.5 / 3, 1, 0.625])
    assert [row["level1.mass"] for row in rows] == pytest.approx([1, 0.8, 1])
    # div: 2 * 2.5 / (3 + 2.5), p: 2 * 2 / (2 + 2.5), page: 2 * 2.5 / (4 + 2.5)
    assert [row["inside_best"] for row in rows] == [1, 1, 0]
    assert rows[0]["best_f1"] == np.float32(5 / 5.5)
    assert [row["before"] for row in rows] == pytest.approx([0, 0.2, 1])
    assert [row["after"] for row in rows] == pytest.approx([0.8, 0, 0])
    assert rows[0]["page"] / f.P_ONE == 0.625
    assert rows[0]["f1"] == np.float32(5 / 5.5)


def test_kinds_of_blocks() -> None:
    kinds = {name: f.block_kind(t.TAG[name]) for name in ("p", "li", "td", "th", "pre", "dd", "caption", "h1", "h6")}
    assert kinds == {"p": 1, "li": 2, "td": 3, "th": 3, "pre": 4, "dd": 5, "caption": 6, "h1": 8, "h6": 8}
    assert (f.block_kind(t.BLOCKQUOTE), f.block_kind(t.BUTTON), f.block_kind(t.DIV)) == (7, 9, 0)
