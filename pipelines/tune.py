"""`headrace tune`: what other thresholds would remove, from the values that a finished run has measured.

A filter with `values: true` leaves what each of its rules measured in the documents and rejects of the first stage.
These columns are held against thresholds, one column at a time; nothing is run again and no text is read but those of
the examples. Memory: one column of a source's documents (8 bytes each) and a few copies of it.

A value is the float64 next to an exact ratio n/d, and a threshold the one next to limit/scale. Rounding keeps order,
so the comparison can be wrong only where n/d and limit/scale differ and round to the same number. They differ by at
least 1/(d * scale), and numbers that round to the same float64 differ by at most limit/scale * 2**-52; so it is exact
as long as d * limit < 2**52: for ratios (limit <= 10**4) up to 2**38 words or bytes of one document. Counts are exact
up to 2**53.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.commit import FileRecord
from pipelines.errors import RecipeError, VerifyError
from pipelines.finished import FinishedRun, open_run
from pipelines.plan import DOCUMENTS, build_plan
from pipelines.recipe import Recipe, SourceRecipe, load_recipe
from pipelines.run import difference
from pipelines.sinks.tables import read_table
from pipelines.storage.storage import ReadStorage
from pipelines.transform import Transform
from pipelines.transforms.rules import Rule, RuleFilter
from tokenizer.terminal import Report

SHARES = (0.001, 0.01, 0.05, 0.1, 0.25)
"""For each, the strictest threshold that removes at most this share of the documents is shown."""
FINE_SHARES = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4),
    *(0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
)
"""The same where one rule is looked at."""
BEGINNING = 300
"""Characters of a text that an example shows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Threshold:
    """What one threshold of a rule would remove."""

    limit: int
    """As a recipe writes it: in units of 1 / `RuleTuning.scale`."""
    removed: int
    """Documents that would break the rule."""
    removed_only: int
    """Those of them that break no other rule of the filter at the recipe's thresholds."""
    marks: tuple[str, ...]
    """"recipe", "default", and the shares ("1%") for which this is the strictest threshold that removes no more."""


@dataclasses.dataclass(frozen=True, slots=True)
class RuleTuning:
    """One rule of a filter over the documents of a source."""

    rule: str
    comparison: str
    """">=" or "<=": how a document's value must stand to the threshold."""
    scale: int
    measured: int
    """Documents that have a value: the rule is about them, and there was something to divide by."""
    limit: int | None
    """The recipe's threshold; None: no limit."""
    default: int | None
    """The threshold where a recipe gives none: the published one."""
    thresholds: tuple[Threshold, ...]
    """From those that remove little to those that remove much; what a recipe cannot set has only those it has."""

    def marked(self, mark: str) -> Threshold | None:
        """Return the threshold with this mark, if there is one."""
        return next((threshold for threshold in self.thresholds if mark in threshold.marks), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A document near the line, and on which side it is."""

    source: str
    removed: bool
    value: float
    """Infinite where something was divided by 0."""
    doc_id: str
    origin_path: str
    origin_offset: int
    url: str | None
    also: tuple[str, ...]
    """Other rules of the filter that the document breaks."""
    text: str
    """The beginning of its text, as the first stage left it (raw: make it visible before a terminal sees it)."""


@dataclasses.dataclass(frozen=True, slots=True)
class FilterTuning:
    """A filter over the documents of a source; shares are of the documents that reached it."""

    source: str
    filter: str
    read: int
    """Documents that the source's reader gave."""
    reached: int
    """Those that no earlier step had stopped."""
    removed: int
    """Those that break a rule at the recipe's thresholds."""
    rules: tuple[RuleTuning, ...]
    examples: tuple[Example, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Changed:
    """A threshold that the recipe has and the run had not."""

    source: str
    rule: str
    in_run: int | None
    in_recipe: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Tuning:
    """Everything that `headrace tune` shows."""

    rule: str | None
    """The rule that was asked for, as FILTER.RULE; None: all of them."""
    changed: tuple[Changed, ...]
    unmeasured: tuple[str, ...]
    """SOURCE: FILTER of the filters that left no values."""
    filters: tuple[FilterTuning, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; JSON has no infinite values, they are null."""
        return dataclasses.asdict(self, dict_factory=_plain)


@dataclasses.dataclass(frozen=True, slots=True)
class _Measured:
    """A filter as the recipe has it now, and where the values are that it left in the run."""

    source: str
    filter: RuleFilter
    files: tuple[FileRecord, ...]
    read: int
    reached: int

    def column(self, rule: Rule) -> str:
        return f"{self.filter.name}_{rule.name}"


def _plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: None if value == math.inf else value for name, value in fields}


def tune_recipe(
    recipe: Path, output: Path | str, report: Report, *, source: str | None = None, rule: str | None = None,
    num_examples: int = 0,
) -> Tuning:  # fmt: skip
    """Hold the values of the run in `output` against other thresholds; those of `recipe` count as the recipe's.

    `source` and `rule` ("FILTER.RULE") leave out all others; `num_examples` documents are shown on each side of the
    line of `rule`. Raises `RecipeError` where the recipe is another than the run's in more than thresholds, or leaves
    no values, and `VerifyError` where there is no finished run or its files are damaged.
    """
    run = open_run(output)
    loaded = load_recipe(recipe)
    _check_same(loaded, run)
    _check_source(loaded, source)
    found, unmeasured = _filters(loaded, run, source)
    chosen = _chosen(found, rule, loaded)
    tuned = tuple(_tune(run, one, rule, num_examples, report) for one in chosen)
    return Tuning(rule, tuple(_changes(loaded, run, source)), tuple(unmeasured), tuned)


def _check_same(recipe: Recipe, run: FinishedRun) -> None:
    """Refuse a recipe that would have measured other documents, or something else."""
    sources = {entry.source.name: entry for entry in run.plan.recipe.sources}
    adopted = [_adopt(entry, sources.get(entry.source.name)) for entry in recipe.sources]
    resolved = build_plan(dataclasses.replace(recipe, sources=tuple(adopted)), run.storage).resolved
    if resolved != run.plan.resolved:
        raise RecipeError(
            f"{recipe.path}: is not the recipe of {run.storage.url} (it differs in "
            f"{difference(run.plan.resolved, resolved)})\n"
            "hint: thresholds, `values` and `drop` of filters may differ; for anything else run the recipe anew"
        )


def _adopt(entry: SourceRecipe, made: SourceRecipe | None) -> SourceRecipe:
    """Return a source of the recipe with what may differ as the run had it."""
    if made is None or [step.name for step in entry.transforms] != [step.name for step in made.transforms]:
        return entry
    source: Any = entry.source
    if hasattr(made.source, "limit"):  # a trial run with --limit
        source = dataclasses.replace(source, limit=made.source.limit)
    steps = (_adopt_thresholds(step, old) for step, old in zip(entry.transforms, made.transforms, strict=True))
    return dataclasses.replace(entry, source=source, transforms=tuple(steps))


def _adopt_thresholds(step: Transform, made: Transform) -> Transform:
    if not isinstance(step, RuleFilter):
        return step
    given = {name: getattr(made, name) for name in ("values", "drop", *_threshold_fields(step))}
    return dataclasses.replace(step, **given)


def _threshold_fields(step: RuleFilter) -> list[str]:
    """Return the fields that are limits of rules, and nothing that is measured: those with a rule's name."""
    names = {rule.name for rule in step.rules}
    return [field.name for field in dataclasses.fields(step) if field.name in names]


def _check_source(recipe: Recipe, source: str | None) -> None:
    names = [entry.source.name for entry in recipe.sources]
    if source is not None and source not in names:
        raise RecipeError(f"{recipe.path}: source {source!r}: there is none\nhint: its sources are {', '.join(names)}")


def _filters(recipe: Recipe, run: FinishedRun, source: str | None) -> tuple[list[_Measured], list[str]]:
    """Return the filters that left values, and the names of those that did not."""
    found: list[_Measured] = []
    unmeasured: list[str] = []
    for entry, place, step, made in _steps(recipe, run, source):
        name = entry.source.name
        if not made.values:
            unmeasured.append(f"{name}: {step.name}")
            continue
        read, reached = _rows_in(run, name, 0), _rows_in(run, name, place)
        found.append(_Measured(name, step, tuple(_files(run, name)), read, reached))
    if not found:
        raise RecipeError(
            f"{run.storage.url}: holds no values of filters"
            f"{'' if source is None else f' of source {source}'} ({'; '.join(unmeasured) or 'no filter is there'})\n"
            f"hint: set `values: true` on filters in {recipe.path} (and `drop: false` to measure without dropping) "
            "and run it into another --output"
        )
    return found, unmeasured


def _steps(
    recipe: Recipe, run: FinishedRun, source: str | None
) -> Iterator[tuple[SourceRecipe, int, RuleFilter, RuleFilter]]:
    """Yield the filters with their place in the chain, counted from 1, as the recipe has and as the run had them."""
    for entry, old in zip(recipe.sources, run.plan.recipe.sources, strict=True):
        if source in (None, entry.source.name):
            pairs = zip(entry.transforms, old.transforms, strict=True)
            for place, (step, made) in enumerate(pairs, start=1):
                if isinstance(step, RuleFilter) and isinstance(made, RuleFilter):
                    yield entry, place, step, made


def _changes(recipe: Recipe, run: FinishedRun, source: str | None) -> Iterator[Changed]:
    for entry, _, step, made in _steps(recipe, run, source):
        for now, then in zip(step.rules, made.rules, strict=True):
            if now.limit != then.limit:
                yield Changed(entry.source.name, f"{step.name}.{now.name}", then.limit, now.limit)


def _rows_in(run: FinishedRun, source: str, step: int) -> int:
    """Return how many documents of a source came to a step of the first stage (0 = its reader), by the ledger."""
    return sum(
        entry.rows
        for commit in run.commits[run.plan.stages[0].name]
        for entry in commit.entries
        if (entry.source, entry.step, entry.account, entry.table) == (source, step, "in", DOCUMENTS)
    )


def _files(run: FinishedRun, source: str) -> Iterator[FileRecord]:
    """Yield the files of the first stage that hold a source's documents and rejects: every split has one source."""
    for table in (DOCUMENTS, "rejects"):
        for record in run.files(run.plan.stages[0].name, table):
            if source in record.detail["sources"]:
                yield record


def _chosen(found: list[_Measured], rule: str | None, recipe: Recipe) -> list[_Measured]:
    if rule is None:
        return found
    chosen = [one for one in found if rule in (f"{one.filter.name}.{each.name}" for each in one.filter.rules)]
    if not chosen:
        known = dict.fromkeys(f"{one.filter.name}.{each.name}" for one in found for each in one.filter.rules)
        raise RecipeError(f"{recipe.path}: rule {rule!r}: has no values\nhint: rules with values: {', '.join(known)}")
    return chosen


def _tune(run: FinishedRun, given: _Measured, chosen: str | None, num_examples: int, report: Report) -> FilterTuning:
    rules = given.filter.rules
    shown = [rule for rule in rules if chosen in (None, f"{given.filter.name}.{rule.name}")]
    what, total = f"{given.source}: {given.filter.name}", len(rules) + len(shown)
    report(what, 0, total)
    num_broken = np.zeros(sum(file.rows for file in given.files), np.uint16)
    for done, rule in enumerate(rules, start=1):
        num_broken += _breaks(rule, _column(run, given, rule), rule.limit)
        report(what, done, total)
    defaults = {rule.name: rule.limit for rule in _with_defaults(given.filter).rules}
    fields, shares = _threshold_fields(given.filter), SHARES if chosen is None else FINE_SHARES
    tuned = []
    for done, rule in enumerate(shown, start=len(rules) + 1):
        column = _column(run, given, rule)
        alone = num_broken == _breaks(rule, column, rule.limit)
        default, some = defaults[rule.name], shares if rule.name in fields else ()
        tuned.append(_tune_rule(rule, default, column, alone, given.reached, some))
        report(what, done, total)
    examples = tuple(_examples(run, given, shown[0], tuned[0], num_examples)) if chosen is not None else ()
    removed = int(np.count_nonzero(num_broken))
    return FilterTuning(
        given.source, given.filter.name, given.read, given.reached, removed, tuple(tuned), examples
    )  # fmt: skip


def _with_defaults(step: RuleFilter) -> RuleFilter:
    """Return the filter with the thresholds that a recipe need not give."""
    names = _threshold_fields(step)
    fields = {field.name: field.default for field in dataclasses.fields(step) if field.name in names}
    given = {name: default for name, default in fields.items() if default is not dataclasses.MISSING}
    return dataclasses.replace(step, **given)


def _column(run: FinishedRun, given: _Measured, rule: Rule) -> np.ndarray:
    """Return a rule's values over all files, float64, shape (documents,); NaN where there is none."""
    name = given.column(rule)
    columns = []
    for file in given.files:
        with _named(file):
            columns.append(read_table(run.storage, file.path, [name]).column(name).to_numpy())
    return np.concatenate([np.zeros(0), *columns])


@contextmanager
def _named(file: FileRecord) -> Iterator[None]:
    """Say which file it is that is damaged or gone."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        raise VerifyError(
            f"{file.path}: cannot be read: {error}\nhint: `headrace verify` checks every file; what was lost is made "
            "anew by the recipe"
        ) from error


def _breaks(rule: Rule, values: np.ndarray, limit: int | None) -> np.ndarray:
    """Return which values break the rule at a threshold, bool, shape (documents,). No value breaks none."""
    if limit is None:
        return np.zeros(len(values), bool)
    return values < limit / rule.scale if rule.at_least else values > limit / rule.scale


def _tune_rule(
    rule: Rule, default: int | None, column: np.ndarray, alone: np.ndarray, reached: int, shares: Sequence[float]
) -> RuleTuning:
    """Say what thresholds remove; `alone` (bool, shape (documents,)) are documents that break no other rule."""
    has_value = ~np.isnan(column)
    values, values_alone = np.sort(column[has_value]), np.sort(column[has_value & alone])
    marks: dict[int, list[str]] = {}
    for mark, limit in (("recipe", rule.limit), ("default", default)):
        if limit is not None:
            marks.setdefault(limit, []).append(mark)
    for share in shares:
        limit = strictest_limit(values, rule.at_least, rule.scale, int(Fraction(str(share)) * reached))
        if limit is not None:
            marks.setdefault(limit, []).append(f"{100 * share:g}%")
    thresholds = tuple(
        Threshold(limit, _num_broken(rule, values, limit), _num_broken(rule, values_alone, limit), tuple(marks[limit]))
        for limit in sorted(marks, reverse=not rule.at_least)
    )
    comparison = ">=" if rule.at_least else "<="
    return RuleTuning(rule.name, comparison, rule.scale, len(values), rule.limit, default, thresholds)


def _num_broken(rule: Rule, values: np.ndarray, limit: int) -> int:
    """Return how many of the ascending values break the rule at a threshold."""
    if rule.at_least:
        return int(np.searchsorted(values, limit / rule.scale, "left"))
    return len(values) - int(np.searchsorted(values, limit / rule.scale, "right"))


def strictest_limit(values: np.ndarray, at_least: bool, scale: int, most: int) -> int | None:
    """Return the strictest whole `limit`, in units of 1/scale, that at most `most` of the ascending values break.

    None where every limit does, or none is the strictest.
    """
    if most >= len(values):
        return None
    stays = float(values[most if at_least else len(values) - 1 - most])  # and all on its better side
    if math.isinf(stays):
        return None
    if at_least:
        limit = math.floor(Fraction(stays) * scale) + 1  # 0.1 is a little more than 1/10 as a float64
        while limit / scale > stays:
            limit -= 1
        return limit
    limit = math.ceil(Fraction(stays) * scale) - 1
    while limit / scale < stays:
        limit += 1
    return limit


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class _Near:
    """A document near the line; ordered by distance, then by doc_id, which is as good as drawn by lot."""

    distance: float
    doc_id: bytes
    file: int
    row: int


def _examples(
    run: FinishedRun, given: _Measured, rule: Rule, tuned: RuleTuning, num_examples: int
) -> Iterator[Example]:
    """Yield the documents nearest to the line of a rule: those kept, the nearest last, then those removed."""
    limit = tuned.limit if tuned.limit is not None else tuned.default
    if limit is None or num_examples == 0:
        return
    kept: list[_Near] = []
    removed: list[_Near] = []
    for number, file in enumerate(given.files):
        with _named(file):
            table = read_table(run.storage, file.path, [given.column(rule), "doc_id"])
        values = table.column(given.column(rule)).to_numpy()
        broken = _breaks(rule, values, limit)
        distances = np.abs(values - limit / rule.scale)
        for side, rows in ((kept, ~broken & ~np.isnan(values)), (removed, broken)):
            nearest = _nearest(table.column("doc_id"), distances, np.flatnonzero(rows), num_examples)
            side += [_Near(distance, doc_id, number, row) for distance, doc_id, row in nearest]
            side[:] = sorted(side)[:num_examples]
    yield from (_example(run, given, rule, near, limit) for near in [*reversed(kept), *removed])


def _nearest(
    doc_ids: pa.ChunkedArray, distances: np.ndarray, rows: np.ndarray, most: int
) -> Iterator[tuple[float, bytes, int]]:
    """Yield (distance, doc_id, row) of the nearest of some rows, the ties cut by doc_id."""
    if len(rows) > most:
        rows = rows[distances[rows] <= np.partition(distances[rows], most - 1)[most - 1]]
    ids = doc_ids.take(pa.array(rows)).combine_chunks()
    words = np.frombuffer(ids.buffers()[1], ">u8", count=2 * (ids.offset + len(ids)))[2 * ids.offset :]
    for place in np.lexsort((words[1::2], words[0::2], distances[rows]))[:most]:
        yield float(distances[rows[place]]), ids[int(place)].as_py(), int(rows[place])


def _example(run: FinishedRun, given: _Measured, rule: Rule, near: _Near, limit: int) -> Example:
    """Read one document: its facts, its values, and the beginning of its text."""
    names = {given.column(each): each for each in given.filter.rules}
    facts = ["origin_path", "origin_offset", "url", "text"]
    with _named(given.files[near.file]):
        found = _row(run.storage, given.files[near.file].path, near.row, [*facts, *names])
    text = pc.utf8_slice_codeunits(found.column("text"), 0, BEGINNING)[0].as_py()
    values = {each.name: found.column(name).to_numpy() for name, each in names.items()}
    also = [each.name for each in names.values() if each != rule and _breaks(each, values[each.name], each.limit)[0]]
    return Example(
        source=given.source,
        removed=bool(_breaks(rule, values[rule.name], limit)[0]),
        value=float(values[rule.name][0]),
        doc_id=near.doc_id.hex(),
        also=tuple(also),
        text=text or "",
        **{name: found.column(name)[0].as_py() for name in facts[:-1]},
    )


def _row(storage: ReadStorage, path: str, row: int, columns: list[str]) -> pa.Table:
    """Return one row of a table's file, from the one row group that is read."""
    with storage.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        group = 0
        while row >= (size := parquet.metadata.row_group(group).num_rows):
            row, group = row - size, group + 1
        return parquet.read_row_group(group, columns=columns, use_threads=False).slice(row, 1)
