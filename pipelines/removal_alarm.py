"""The alarm of deduplication: a share of duplicates that nobody expects stops the run before anything is tokenized.

Removing what is no duplicate is an error that no later step shows: where a recipe says which share of a source's
documents it expects to be removed (`deduplicate.expect_removed`), another one ends the run with what is needed to judge
it, the largest clusters and pairs of texts, and with the way to go on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.commit import Commit
from pipelines.engines.grouping import bucket_label, bucket_of
from pipelines.errors import HeadraceError, visible
from pipelines.near_duplicates.columns import new_keys
from pipelines.plan import DOCUMENTS, IDENTIFY, Plan
from pipelines.schema import DOC_ID
from pipelines.sinks.tables import read_table
from pipelines.storage.storage import Storage
from pipelines.transforms.rules import RATIO

MOST_CLUSTERS, MOST_PAIRS = 10, 3
SHOWN = 160
"""Characters of a text."""
FOUND = {"duplicates": "kept_doc_id", "clusters": "cluster_id"}
"""Tables of removed documents, in which those of one kept document lie together, and the column that names it."""

Commits = Mapping[str, Sequence[Commit]]
"""Of finished stages, by their names."""


class Cluster(NamedTuple):
    """A kept document, how many of a source were removed because of it, and one of these."""

    removed: int
    kept: bytes
    example: bytes


class RemovalAlarm(HeadraceError):
    """More or fewer documents of a source are duplicates than its recipe expects."""


def check_removed(plan: Plan, commits: Commits, output: Storage) -> None:
    """Raise `RemovalAlarm` where the share of a source's documents that will be dropped is none that is expected.

    It is that of exact, URL and near-duplicates together, over the documents that came into deduplication.
    """
    expected = plan.recipe.deduplicate.expect_removed if plan.recipe.deduplicate else {}
    for place, entry in enumerate(plan.recipe.sources):
        source = entry.source.name
        if source not in expected:
            continue
        total = sum(
            one.rows
            for commit in commits[IDENTIFY]
            for one in commit.entries
            if (one.source, one.table, one.transform, one.account) == (source, DOCUMENTS, "write", "out")
        )
        removed = sum(len(rows) for rows, _ in _removed(plan, commits, output, place))
        least, most = expected[source]
        if not least * total <= removed * RATIO <= most * total:
            raise RemovalAlarm(_report(plan, commits, output, place, removed, total))


def _removed(plan: Plan, commits: Commits, output: Storage, place: int) -> Iterator[tuple[pa.Table, str]]:
    """Yield the removed documents of a source, file by file, and the column that names the kept one."""
    for stage in plan.stages:
        for made in stage.outputs:
            if made.table not in FOUND or "sort" in stage.name or stage.name not in commits:
                continue
            for commit in commits[stage.name]:
                for file in commit.files:
                    if file.table == made.table:
                        rows = read_table(output, file.path, ["doc_id", FOUND[made.table], "place"])
                        yield rows.filter(pc.equal(rows.column("place"), place)), FOUND[made.table]


def _report(plan: Plan, commits: Commits, output: Storage, place: int, removed: int, total: int) -> str:
    source = plan.recipe.sources[place].source.name
    assert plan.recipe.deduplicate is not None
    least, most = plan.recipe.deduplicate.expect_removed[source]
    clusters = _largest(plan, commits, output, place)
    lines = [
        f"source {source}: {removed:,} of {total:,} documents ({_percent(removed, total)}) are duplicates, expected "
        f"are {_percent(least, RATIO)} to {_percent(most, RATIO)}; the run stops here",
        "the largest clusters:" if clusters else "there are no duplicates",
        *(f"  {one.kept.hex()} stands for {one.removed:,} others, as {one.example.hex()}" for one in clusters),
    ]
    samples = [doc_id for one in clusters[:MOST_PAIRS] for doc_id in (one.kept, one.example)]
    lines += [f"  {doc_id.hex()[:12]}: {_text_of(commits, output, doc_id)}" for doc_id in samples]
    hint = (
        "hint: if these are duplicates, change deduplicate.expect_removed (it changes no output) and run the same "
        "command: it goes on from here; if not, raise the threshold or narrow the scope, and choose another --output"
    )
    return "\n".join([*lines, hint])


def _largest(plan: Plan, commits: Commits, output: Storage, place: int) -> list[Cluster]:
    """Return the largest clusters of a source, the largest first."""
    largest: list[Cluster] = []
    for rows, kept in _removed(plan, commits, output, place):
        if not rows.num_rows:
            continue
        kept_ids, ids = (rows.column(name).combine_chunks() for name in (kept, "doc_id"))
        firsts = np.flatnonzero(new_keys(kept_ids))
        sizes = np.diff(np.append(firsts, len(ids)))
        for first in np.argsort(-sizes, kind="stable")[:MOST_CLUSTERS]:
            at = int(firsts[first])
            largest.append(Cluster(int(sizes[first]), kept_ids[at].as_py(), ids[at].as_py()))
        largest = heapq.nlargest(MOST_CLUSTERS, largest)
    return largest


def _text_of(commits: Commits, output: Storage, doc_id: bytes) -> str:
    """Return the beginning of a document's text, on one line."""
    found = commits[IDENTIFY]
    label = bucket_label(int(bucket_of(pa.array([doc_id], DOC_ID), len(found))[0]), len(found))
    for file in (file for commit in found if commit.label == label for file in commit.files if file.table == DOCUMENTS):
        rows = read_table(output, file.path, ["doc_id", "text"])
        place = pc.index(rows.column("doc_id"), pa.scalar(doc_id, DOC_ID)).as_py()
        if place >= 0:
            text: Any = rows.column("text")[place].as_py() or ""
            return visible(" ".join(text[: 4 * SHOWN].split())[:SHOWN])
    return "(in an earlier run)"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "none"
