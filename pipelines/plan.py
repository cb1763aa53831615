"""From a recipe to its stages, its resolved form and its fingerprint.

The main job has three stages, and those of `duplicate_stages.py` between the last two:

    1-read      map    raw splits -> documents, one chain of transforms for each source
    2-identify  group  documents by doc_id: one document a natural key, canonical order; hashes of texts and URLs
    N-tokenize  map    documents: verdicts of deduplication, encode, token shards

Where a source keeps its best share by score (`quality`, `keep_top`), the first stage also counts the scores of every
split, and the last one reads all these counts, whole, and drops what lies below the line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipelines.commit import Commit
from pipelines.contamination.canaries import Canaries
from pipelines.deduplicate import LAST
from pipelines.duplicate_stages import DOCUMENTS, IDENTIFY, DuplicateStages, hashing
from pipelines.errors import RecipeError
from pipelines.near_duplicates.finish import MOST_CHAINED
from pipelines.quality_classifier.model import SCORE_ONE
from pipelines.recipe import Recipe, SourceRecipe
from pipelines.schema import CORE, IDENTITY, with_columns
from pipelines.sinks.histogram import HistogramOutput
from pipelines.sinks.tables import TableOutput
from pipelines.sinks.token_shards import TokenShards
from pipelines.sources.committed import Committed
from pipelines.stage import Chain, GroupStage, MapStage, Side, Stage, TableOf
from pipelines.storage.storage import Storage
from pipelines.transform import Transform
from pipelines.transforms.contamination import Contamination
from pipelines.transforms.encode import Encode
from pipelines.transforms.exact import HASHES, SameKey
from pipelines.transforms.given_files import given_fields
from pipelines.transforms.quality import SCORES, SCORES_TABLE, KeepTop, Quality
from tokenizer.encodings import ENCODINGS

RECIPE_FORMAT = 1
CANARY_PREFIX = "canary-"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a run, and the resolved recipe that is stored beside the data."""

    recipe: Recipe
    stages: tuple[Stage, ...]
    resolved: dict[str, Any]
    rounds: int = 1
    """Of near-deduplication: those that were needed so far."""
    last_of_rounds: str | None = None
    """The stage that says whether another round is needed; None where the rounds are finished, or there are none."""

    @property
    def fingerprint(self) -> str:
        """Hash of the resolved recipe: what made the data, wherever its inputs lie and whatever engine runs it."""
        return hashlib.blake2b(self.resolved_json(), digest_size=16).hexdigest()

    def resolved_json(self) -> bytes:
        """Return the resolved recipe's file."""
        return (json.dumps(self.resolved, indent=1, ensure_ascii=False) + "\n").encode()

    def next_round(self, commits: Iterable[Commit], output: Storage) -> Plan | None:
        """Return the plan with what has to follow the last round, by its commits; None where all is decided."""
        rows: dict[str, int] = defaultdict(int)
        for commit in commits:
            for file in commit.files:
                rows[file.table] += file.rows
        if not rows["undecided"]:
            return None
        if rows["members"] or rows["chains"] > MOST_CHAINED:
            return build_plan(self.recipe, output, self.rounds + 1)
        return build_plan(self.recipe, output, self.rounds, finish=True)

    @property
    def canaries(self) -> dict[str, Canaries]:
        """The sources of canaries, by name: what they hold must be dropped by the first stage."""
        first = self.stages[0]
        assert isinstance(first, MapStage)
        return {name: chain.source for name, chain in first.chains.items() if isinstance(chain.source, Canaries)}

    @property
    def document_stages(self) -> list[str]:
        """Names of the stages that hand documents on, in order."""
        return [stage.name for stage in self.stages if any(output.table == DOCUMENTS for output in stage.outputs)]

    def tables_between(self) -> list[tuple[str, str, str]]:
        """Return (table, stage that writes it, stage that reads it once) for tables other than documents."""
        given = [(one, stage.name) for stage in self.stages if isinstance(stage, GroupStage) for one in stage.inputs]
        for stage in self.stages:
            if isinstance(stage, MapStage):  # a side table that is not bucketed is read by every split
                given += [(side.given, stage.name) for side in stage.side if side.bucketed]
        return [(one.table, one.stage, name) for one, name in given if one.run is None and one.table != DOCUMENTS]

    def rows_of_older_runs(self) -> dict[tuple[str, str], int]:
        """Return, by (table, stage that reads it), how many rows come from earlier runs."""
        older = self.recipe.deduplicate.older if self.recipe.deduplicate else ()
        return {
            (given.table, stage.name): sum(run.rows[f"{given.stage.partition('-')[2]}/{given.table}"] for run in older)
            for stage in self.stages
            if isinstance(stage, GroupStage)
            for given in stage.inputs
            if given.run is not None
        }


def build_plan(recipe: Recipe, output: Storage, rounds: int = 1, *, finish: bool = False) -> Plan:
    """Lay out the stages of a recipe, with so many rounds of near-deduplication where it asks for that, and their end.

    Raises `RecipeError` when its transforms do not fit together.
    """
    chains = {
        entry.source.name: Chain(entry.source, entry.root.open(), _transforms(recipe, place, entry))
        for place, entry in enumerate(recipe.sources)
    }
    chains |= _canaries(recipe)
    read_schema = _schema_after(recipe, chains)
    scores = (HistogramOutput(SCORES_TABLE, SCORES, SCORE_ONE + 1),) if _kept_shares(recipe) else ()
    hashes = (TableOutput("hashes", HASHES),) if recipe.deduplicate else ()
    stages: list[Stage] = [
        MapStage("1-read", chains, read_schema, (TableOutput(DOCUMENTS, read_schema), *scores)),
        GroupStage(
            name=IDENTIFY,
            inputs=(TableOf("1-read", DOCUMENTS),),
            schema=read_schema,
            key="doc_id",
            order_by=("content_hash", "origin_path", "origin_offset"),
            identity=IDENTITY,
            buckets=recipe.output.buckets,
            reduce=SameKey(),
            outputs=(TableOutput(DOCUMENTS, read_schema), *hashes),
            projected=tuple(table.table for table in hashes),
        ),
    ]
    found = (
        DuplicateStages(recipe.deduplicate, read_schema, recipe.output.buckets, output, rounds, finish)
        if recipe.deduplicate
        else None
    )
    stages += found.stages if found else []
    stages.append(_tokenize(recipe, read_schema, found, output))
    resolved = _resolved(recipe, stages) if rounds == 1 and not finish else build_plan(recipe, output).resolved
    return Plan(recipe, tuple(stages), resolved, rounds, found.last_of_rounds if found else None)


def _canaries(recipe: Recipe) -> dict[str, Chain]:
    """Return a source of canaries for each source that is searched for evaluation items: they must all be found."""
    chains = {}
    for place, entry in enumerate(recipe.sources):
        searches = [step for step in entry.transforms if isinstance(step, Contamination)]
        for step in searches:
            name = f"{CANARY_PREFIX}{entry.source.name}"
            if name in (other.source.name for other in recipe.sources):
                raise RecipeError(
                    f"{recipe.path}: sources.{name}: is what the canaries of {entry.source.name} are called"
                )
            dropping = dataclasses.replace(step, action="drop")
            chains[name] = Chain(Canaries(name, dropping), entry.root.open(), (dropping, *_hashing(recipe, place)))
    return chains


def _tokenize(recipe: Recipe, schema: pa.Schema, found: DuplicateStages | None, output: Storage) -> MapStage:
    shares = _kept_shares(recipe)
    if shares and found and found.editors:
        raise RecipeError(
            f"{recipe.path}: deduplicate.passages: cannot stand beside keep_top of source {shares[0][0]}, which drops "
            "documents after their lines were compared: the one that holds a line's last copy could go\n"
            "hint: use min_score, or take the passages in a run of their own"
        )
    judges, sides = (found.judges, found.sides) if found else ([], [])
    products, tables = found.products() if found else ((), ())
    if shares:
        judges = [*judges, KeepTop(shares)]
        sides = [*sides, Side(TableOf("1-read", SCORES_TABLE), SCORES, bucketed=False)]
    editors = found.editors if found else []
    transforms = (*judges, *products, *editors, Encode(recipe.tokenizer.encoding, recipe.tokenizer.encoder))
    encoded = schema
    for transform in transforms:
        encoded = with_columns(encoded, transform.adds, transform.drops)
    left_out = {name for step in (*products, *_hashing(recipe, 0)) for name in step.adds.names} | set(Encode.adds.names)
    documents = pa.schema([field for field in encoded if field.name not in left_out])
    return MapStage(
        name=f"{(found.number if found else 2) + 1}-{LAST}",
        chains={DOCUMENTS: Chain(Committed(DOCUMENTS, schema), output, transforms)},
        schema=encoded,
        outputs=(
            TableOutput(DOCUMENTS, documents),
            TokenShards(recipe.tokenizer.encoding, recipe.output.partition_by),
            *tables,
        ),
        side=tuple(sides),
    )


def _kept_shares(recipe: Recipe) -> tuple[tuple[str, int], ...]:
    """Return the sources of which only a share is kept, and that share (in 1/10,000)."""
    return tuple(
        (entry.source.name, step.keep_top)
        for entry in recipe.sources
        for step in entry.transforms  # one `quality` at most: a second one could not add its column again
        if isinstance(step, Quality) and step.drop and step.keep_top is not None
    )


def _transforms(recipe: Recipe, place: int, entry: SourceRecipe) -> tuple[Transform, ...]:
    return (*entry.transforms, *_hashing(recipe, place))


def _hashing(recipe: Recipe, place: int) -> tuple[Transform, ...]:
    return hashing(recipe.deduplicate, place) if recipe.deduplicate else ()


def _schema_after(recipe: Recipe, chains: dict[str, Chain]) -> pa.Schema:
    """Return the core and every column that any chain ends with; a column must mean one type everywhere."""
    fields: dict[str, pa.Field] = {field.name: field for field in CORE}
    for name, chain in chains.items():
        schema = pa.schema([*CORE, *chain.source.adds])
        try:
            for transform in chain.transforms:
                schema = with_columns(schema, transform.adds, transform.drops)
        except ValueError as error:
            raise RecipeError(f"{recipe.path}: sources.{name}.transforms: {error}") from error
        for field in schema:
            known = fields.setdefault(field.name, field.with_nullable(True))  # other sources lack it
            if known.type != field.type:
                raise RecipeError(
                    f"{recipe.path}: sources.{name}: column {field.name} is {field.type} here and {known.type} in "
                    "another source\nhint: a column must have one type in all sources"
                )
    return pa.schema(fields.values())


def _resolved(recipe: Recipe, stages: list[Stage]) -> dict[str, Any]:
    return {
        "format": RECIPE_FORMAT,
        "name": recipe.name,
        "sources": {
            entry.source.name: {
                "reader": entry.source.kind,
                **_fields(entry.source),
                "transforms": [{"transform": step.name, **_fields(step)} for step in entry.transforms],
            }
            for entry in recipe.sources
        },
        "deduplicate": recipe.deduplicate and recipe.deduplicate.resolved(),
        "tokenizer": {
            **dataclasses.asdict(recipe.tokenizer),
            "sha256": ENCODINGS[recipe.tokenizer.encoding].sha256,
        },
        "output": dataclasses.asdict(recipe.output),
        "stages": {
            stage.name: {
                output.table: [[field.name, str(field.type)] for field in output.schema] for output in stage.outputs
            }
            for stage in stages
        },
    }


def _fields(step: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(step)
    for name in given_fields(type(step)):  # what is in a file counts, not where it lies
        fields[name] = _hashes(fields[name])
    model = {"model": step.model} if hasattr(step, "model") and "model" not in fields else {}
    return {"version": step.version, **model, **fields}


def _hashes(given: Any) -> Any:
    if isinstance(given, list | tuple):
        return [_hashes(one) for one in given]
    return given and {"sha256": given["sha256"]}
