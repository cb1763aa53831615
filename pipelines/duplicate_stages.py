"""The stages that find duplicates, and the steps of the last stage that drop them.

    find-duplicate-urls  group  hashes by URL: all but the first of each URL
    find-duplicates      group  hashes of what stays by text, likewise
    sort-duplicates      group  those by doc_id, bucketed like the documents
    band-keys            map    documents that are no such copies -> keys of their MinHash bands
    candidates           group  keys by band: pairs of documents, and whose shingles are asked for
    ask                  group  those by doc_id, with the sets that earlier runs left
    shingle-sets         map    documents that are asked for -> their sets of shingles
    round-NN-offer       group  messages by doc_id: proposers' sets to those behind them
    round-NN-decide      group  messages by doc_id: true similarities, who is kept and who is removed
    round-NN-propose     group  members of crowded buckets by band, from the second round on
    round-NN-finish      group  the edges between the last few undecided documents, in one place
    clusters             group  edges by the kept document: clusters and their sizes
    sort-near-duplicates group  edges by doc_id, bucketed like the documents
    line-hashes          map    documents that stay -> hashes of their lines and paragraphs
    find-duplicate-lines group  those by hash: all but the first few of each, as edits
    sort-edits           group  edits by doc_id

Rounds go on until nobody is undecided, or so few are that one more stage finishes: how many there are is a matter of
the data, and they share a number, so that the names of all other stages do not depend on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pyarrow as pa

from pipelines.deduplicate import LAST, TEXTS, URLS, Deduplicate, Near, Passages
from pipelines.near_duplicates import tables
from pipelines.near_duplicates.ask import Ask
from pipelines.near_duplicates.clusters import Clusters
from pipelines.near_duplicates.decide import Decide, Offer
from pipelines.near_duplicates.finish import Finish
from pipelines.near_duplicates.propose import Propose
from pipelines.schema import DOC_ID, with_columns
from pipelines.sinks.derived import DerivedOutput
from pipelines.sinks.sink import Output
from pipelines.sinks.tables import TableOutput
from pipelines.sources.committed import Committed
from pipelines.stage import Chain, GroupStage, MapStage, Reduce, Side, Stage, TableOf
from pipelines.storage.storage import Storage
from pipelines.transform import Transform
from pipelines.transforms.duplicate_lines import (
    GONE,
    LINE_EDITS,
    LINE_HASHES,
    TAKEN,
    FindDuplicateLines,
    RemoveDuplicateLines,
    line_hash_rows,
)
from pipelines.transforms.exact import (
    DUPLICATES,
    HASHES,
    ExactDuplicate,
    FindDuplicates,
    SortTable,
    TextHash,
    UrlDuplicate,
    UrlHash,
)
from pipelines.transforms.near_duplicate import (
    BandKeys,
    NearDuplicate,
    ShingleSets,
    band_key_rows,
    shingle_set_rows,
    state_rows,
)
from pipelines.transforms.rank import Rank

DOCUMENTS, IDENTIFY = "documents", "2-identify"
MESSAGES, CHAINS = TableOutput("messages", tables.MESSAGES), TableOutput("chains", tables.CHAINS)


def hashing(settings: Deduplicate, place: int) -> tuple[Transform, ...]:
    """Return the steps that end the chain of the source at `place`: keys, and the rank."""
    steps: list[Transform] = []
    if settings.exact is not None:
        steps.append(TextHash(settings.exact, settings.normalised))
    if settings.url is not None:
        steps.append(UrlHash(settings.url))
    return (*steps, Rank(place, settings.prefer, settings.generation))


@dataclasses.dataclass(slots=True)
class DuplicateStages:
    """Lays the stages out, behind the first two."""

    settings: Deduplicate
    schema: pa.Schema
    """Of the documents."""
    buckets: int
    output: Storage
    rounds: int
    """Of near-deduplication."""
    finish: bool
    """Whether the last round is followed by the stage that decides what it left."""
    stages: list[Stage] = dataclasses.field(default_factory=list)
    sides: list[Side] = dataclasses.field(default_factory=list)
    """Tables of the last stage, and the steps that look documents up in them."""
    judges: list[Transform] = dataclasses.field(default_factory=list)
    editors: list[Transform] = dataclasses.field(default_factory=list)
    """Steps behind all judges, and behind what is left of the texts for later runs."""
    last_of_rounds: str | None = None
    """The stage whose tables say whether another round is needed; None once the rounds are finished."""
    number: int = 2
    """Of the last stage so far."""

    def __post_init__(self) -> None:
        """Lay them out."""
        self._exact()
        if self.settings.near is not None:
            self._near(self.settings.near)
        if self.settings.passages is not None:
            self._passages(self.settings.passages)

    def products(self) -> tuple[tuple[Transform, ...], tuple[Output, ...]]:
        """Return the steps and outputs of the last stage that leave something for later runs."""
        near = self.settings.near
        if near is None or not self.settings.for_later_runs:
            return (), ()
        sets = DerivedOutput(
            "shingle_sets", _taken("doc_id", "rank", "shingles"), tables.SHINGLE_SETS, shingle_set_rows
        )
        steps = (BandKeys(near.minhash, near.scope), ShingleSets(near.minhash.unit, near.minhash.ngram))
        return steps, (_band_keys(steps[0]), sets)

    def _exact(self) -> None:
        kinds: list[tuple[str, str, Transform]] = []
        if self.settings.url is not None:
            kinds.append(("url_hash", URLS, UrlDuplicate()))
        if self.settings.exact is not None:
            kinds.append(("text_hash", TEXTS, ExactDuplicate()))
        found: list[TableOf] = []
        given = TableOf(IDENTIFY, "hashes")
        for key, name, judge in kinds:
            hands_on = self.settings.for_later_runs or (key, name, judge) != kinds[-1]
            outputs = [TableOutput("duplicates", DUPLICATES), *([TableOutput("hashes", HASHES)] if hands_on else [])]
            reduce = FindDuplicates(key, judge.name, self.settings.generation, hands_on)
            stage = self._group(name, [given, *self._older(name, "hashes")], HASHES, key, ("rank",), reduce, outputs)
            found.append(TableOf(stage, "duplicates"))
            given = TableOf(stage, "hashes")
            self.judges.append(judge)
        if found:
            self._sort("sort-duplicates", found, DUPLICATES)

    def _near(self, near: Near) -> None:
        generation = self.settings.generation
        keys = BandKeys(near.minhash, near.scope)
        banded = self._map("band-keys", keys, tuple(self.sides), _band_keys(keys))
        given = [TableOf(banded, "band_keys"), *self._older(LAST, "band_keys")]
        proposed = self._propose("candidates", given, tables.BAND_KEYS, Propose(generation, first=True))
        given = [TableOf(proposed, "shingle_sets"), *self._older(LAST, "shingle_sets")]
        asked = self._group(
            "ask", given, tables.SHINGLE_SETS, "doc_id", ("rank",), Ask(generation),
            [TableOutput("wanted", tables.WANTED), MESSAGES],
        )  # fmt: skip
        wanted = Side(TableOf(asked, "wanted"), tables.WANTED)
        states = DerivedOutput("messages", _taken("doc_id", "rank", "place", "shingles"), tables.MESSAGES, state_rows)
        made = self._map("shingle-sets", ShingleSets(near.minhash.unit, near.minhash.ngram), (wanted,), states)
        told, edges, decided = [TableOf(asked, "messages"), TableOf(made, "messages")], [], ""
        self.number += 1
        for number in range(1, self.rounds + 1):
            if number > 1:
                members = [TableOf(decided, "members")]
                reduce = Propose(generation, first=False)
                proposed = self._propose(f"round-{number:02d}-propose", members, tables.MEMBERS, reduce)
            given = [TableOf(proposed, "messages"), *told]
            offered = self._say(f"round-{number:02d}-offer", given, Offer(number == 1), [MESSAGES])
            decided = self._say(
                f"round-{number:02d}-decide", [TableOf(offered, "messages")], Decide(near.threshold),
                [
                    TableOutput("near_duplicates", tables.NEAR_DUPLICATES),
                    TableOutput("undecided", tables.UNDECIDED_DOCUMENTS),
                    TableOutput("members", tables.MEMBERS),
                    CHAINS,
                    MESSAGES,
                ],
            )  # fmt: skip
            edges.append(TableOf(decided, "near_duplicates"))
            told = [TableOf(decided, "messages")]
        if self.finish:
            edges.append(self._finish(decided))
        else:
            self.last_of_rounds = decided
        clusters = self._group(
            "clusters", edges, tables.NEAR_DUPLICATES, "kept_doc_id", (), Clusters(),
            [TableOutput("clusters", tables.CLUSTERS), TableOutput("cluster_sizes", tables.CLUSTER_SIZES)],
        )  # fmt: skip
        self._sort("sort-near-duplicates", edges, tables.NEAR_DUPLICATES)
        self.sides.append(Side(TableOf(clusters, "cluster_sizes"), tables.CLUSTER_SIZES))
        self.judges.append(NearDuplicate(near.threshold))

    def _finish(self, decided: str) -> TableOf:
        stage = self._group(
            f"round-{self.rounds:02d}-finish", [TableOf(decided, CHAINS.table)], tables.CHAINS, "chain", ("rank",),
            Finish(), [TableOutput("near_duplicates", tables.NEAR_DUPLICATES)], ("doc_id", "other"),
        )  # fmt: skip
        return TableOf(stage, "near_duplicates")

    def _passages(self, passages: Passages) -> None:
        gone = tuple(side for side in self.sides if side.given.table in GONE)
        lines = DerivedOutput("line_hashes", TAKEN, LINE_HASHES, line_hash_rows)
        hashed = self._map("line-hashes", passages.step(), gone, lines)
        edits = TableOutput("edits", LINE_EDITS)
        found = self._group(
            "find-duplicate-lines", [TableOf(hashed, "line_hashes")], LINE_HASHES, "line_hash",
            ("rank", "doc_id", "start"), FindDuplicateLines(passages.lines, passages.paragraphs), [edits],
            ("end", "kind"),
        )  # fmt: skip
        sorted_edits = self._group(
            "sort-edits", [TableOf(found, "edits")], LINE_EDITS, "doc_id", ("start",), SortTable("edits"), [edits],
            ("end", "reason"),
        )  # fmt: skip
        self.sides.append(Side(TableOf(sorted_edits, "edits"), LINE_EDITS))
        self.editors.append(RemoveDuplicateLines())

    def _older(self, stage: str, table: str) -> list[TableOf]:
        return [TableOf(run.stages[stage], table, run.storage) for run in self.settings.older]

    def _named(self, name: str) -> str:
        """Return a stage's name: rounds share one number."""
        self.number += not name.startswith("round-")
        return f"{self.number}-{name}"

    def _map(self, name: str, step: Transform, sides: tuple[Side, ...], output: Output) -> str:
        stage = MapStage(
            name=self._named(name),
            chains={DOCUMENTS: Chain(Committed(DOCUMENTS, self.schema), self.output, (step,))},
            schema=with_columns(self.schema, step.adds, step.drops),
            outputs=(output,),
            side=sides,
        )
        self.stages.append(stage)
        return stage.name

    def _group(
        self, name: str, given: list[TableOf], schema: pa.Schema, key: str, order_by: tuple[str, ...], reduce: Reduce,
        outputs: Sequence[Output], identity: tuple[str, ...] = ("doc_id",),
    ) -> str:  # fmt: skip
        stage = GroupStage(
            self._named(name), tuple(given), schema, key, order_by, identity, self.buckets, reduce, tuple(outputs)
        )
        self.stages.append(stage)
        return stage.name

    def _propose(self, name: str, given: list[TableOf], schema: pa.Schema, reduce: Propose) -> str:
        asked = [TableOutput("shingle_sets", tables.SHINGLE_SETS)] if reduce.first else []
        outputs = [MESSAGES, TableOutput("crowded", tables.CROWDED), *asked]
        return self._group(name, given, schema, "band_key", ("rank",), reduce, outputs)

    def _say(self, name: str, given: list[TableOf], reduce: Reduce, outputs: Sequence[Output]) -> str:
        order, identity = tables.MESSAGE_ORDER, tables.MESSAGE_IDENTITY
        return self._group(name, given, tables.MESSAGES, "doc_id", order, reduce, outputs, identity)

    def _sort(self, name: str, given: list[TableOf], schema: pa.Schema) -> None:
        table = given[0].table
        stage = self._group(name, given, schema, "doc_id", (), SortTable(table), [TableOutput(table, schema)])
        self.sides.append(Side(TableOf(stage, table), schema))


def _band_keys(step: BandKeys) -> Output:
    taken = pa.schema([*_taken("doc_id", "rank"), *step.adds])
    return DerivedOutput("band_keys", taken, tables.BAND_KEYS, band_key_rows)


def _taken(*names: str) -> pa.Schema:
    """Return the columns of documents that a derived table is made of."""
    types = {"place": pa.int32(), "shingles": tables.SHINGLES}
    return pa.schema([pa.field(name, types.get(name, DOC_ID)) for name in names])
