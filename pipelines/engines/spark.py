"""The Spark engine: `map` by `mapInArrow` over ranks of works, `group` by Spark's own shuffle and sort.

A map stage sends Spark nothing but descriptions of works; inputs are read and outputs written inside the tasks, through
our own storages. A group stage reads its inputs in tasks, gives every row its bucket, lets Spark partition by the
bucket itself (`repartitionById`: `repartition` would hash it once more, so that buckets collide) and sort within
partitions, and reduces each partition. Rows pass as Arrow batches; Python never sees one.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from py4j.protocol import Py4JError
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql.pandas.types import from_arrow_schema

from pipelines.commit import CommittedTable
from pipelines.engines.engine import DEFAULT_LIMITS, Engine, Progress, Report, StageResult, finish, scatter_works
from pipelines.engines.grouping import bucket_id, bucket_label, bucket_of, reduce_rows
from pipelines.engines.java import prepare_java
from pipelines.engines.project_zip import WORKER_ENVIRONMENT, project_zip
from pipelines.engines.works import Outcome, Rank, ScatterWork, cut_into_ranks, do_rank, explained
from pipelines.errors import HeadraceError, WorkerDied
from pipelines.sinks.tables import read_batches
from pipelines.stage import GroupStage
from pipelines.storage.storage import Storage

BUCKET = "headrace_bucket"
SETTINGS = {
    "spark.app.name": "headrace",
    "spark.driver.maxResultSize": "4g",  # commits of 100,000 splits are some hundred megabytes
    "spark.ui.showConsoleProgress": "false",
}
"""What a session of ours has unless it is told otherwise."""
WORKER_SETTINGS = {f"spark.executorEnv.{name}": value for name, value in WORKER_ENVIRONMENT.items()}
SQL_SETTINGS = {
    "spark.sql.adaptive.enabled": "false",  # it would join small partitions, and a partition is a bucket
    "spark.sql.execution.arrow.maxBytesPerBatch": str(DEFAULT_LIMITS.max_bytes),
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(DEFAULT_LIMITS.max_rows),
    "spark.sql.execution.arrow.useLargeVarTypes": "true",  # texts of a batch may pass 2 GiB
    "spark.sql.session.timeZone": "UTC",
}
"""What the bytes and the memory of a stage depend on: set on every session."""


class SparkEngine(Engine):
    """Runs stages on a Spark session: that of `spark-submit`, or a local one of `workers` cores."""

    name = "spark"

    def __init__(self, workers: int, options: Mapping[str, str] | None = None) -> None:
        """Take the cores of a local session, and Spark's own settings (`spark.master`, `spark.executor.memory` ...)."""
        self.limits = DEFAULT_LIMITS
        self._workers, self._options = workers, dict(options or {})
        self._session: SparkSession | None = None
        self._shipped: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> SparkEngine:
        """Start the session and ship our packages to its executors."""
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)  # we use none
        settings = SETTINGS | WORKER_SETTINGS | self._options
        if "PYSPARK_GATEWAY_PORT" not in os.environ:  # spark-submit has started a JVM already, and chosen a master
            os.environ.update(prepare_java(os.environ))
            settings.setdefault("spark.master", f"local[{self._workers}]")
        if settings.get("spark.master", "").startswith("local"):  # elsewhere this path may lead to nothing
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder
        for key, value in settings.items():
            builder = builder.config(key, value)
        try:
            self._session = builder.getOrCreate()
        except (PySparkException, Py4JError) as error:
            raise HeadraceError(
                f"engine spark: the session does not start: {_cause(error)}\n"
                f"hint: check its settings ({', '.join(self._options) or 'spark-defaults.conf'}), and that Java runs"
            ) from error
        for key, value in SQL_SETTINGS.items():
            self._session.conf.set(key, value)
        self._shipped = tempfile.TemporaryDirectory(prefix="headrace-")  # executors may come for it at any time
        self._session.sparkContext.addPyFile(str(project_zip(Path(self._shipped.name))))
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the session; tasks that are still at work end with it."""
        if self._session is not None:
            with suppress(Py4JError, ConnectionError):  # it may be what has died
                self._session.stop()
        if self._shipped is not None:
            self._shipped.cleanup()

    def run_ranks(self, ranks: Sequence[Rank], progress: Progress) -> Iterator[Outcome]:
        """Do every rank in a task of its own."""
        return self._outcomes(self._spread(ranks).mapInArrow(_do_ranks, "outcome binary"), progress)

    def group(
        self, stage: GroupStage, inputs: Sequence[CommittedTable], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a group stage in one job: read, shuffle, sort, reduce; one partition is one bucket."""
        ids = {bucket_id(stage, number, inputs): number for number in range(stage.buckets)}

        def do(missing: list[str], progress: Progress) -> Iterator[Outcome]:
            wanted = {ids[split_id]: split_id for split_id in missing}
            works = scatter_works(stage, inputs, output, self.limits)
            reads = self._spread(list(cut_into_ranks(list(works.items()))))
            rows = reads.mapInArrow(_ReadRows(frozenset(wanted)), from_arrow_schema(_spark_schema(stage)))
            rows = rows.unionAll(self._ends(stage, sorted(wanted)))
            names = dict.fromkeys((stage.key, *stage.order_by, *stage.identity))
            order = [functions.asc_nulls_last(name) for name in names]
            ordered = rows.repartitionById(stage.buckets, functions.col(BUCKET)).sortWithinPartitions(*order)
            reduced = ordered.mapInArrow(_ReduceRows(stage, wanted, output), "outcome binary")
            return self._outcomes(reduced, progress)

        return finish(stage.folder, stage.name, list(ids), do, output, report)

    def _spread(self, ranks: Sequence[Rank]) -> DataFrame:
        """Return a data frame that holds one rank in each of its partitions, in order."""
        assert self._session is not None
        numbers = pa.array(range(len(ranks)), pa.int32())
        table = pa.table({"number": numbers, "rank": pa.array([pickle.dumps(rank) for rank in ranks], pa.binary())})
        return self._session.createDataFrame(table).repartitionById(max(len(ranks), 1), functions.col("number"))

    def _ends(self, stage: GroupStage, buckets: Sequence[int]) -> DataFrame:
        """Return a row without a key for each bucket: it comes last, and without it the rows were cut short."""
        assert self._session is not None
        schema = _spark_schema(stage)
        columns = [pa.nulls(len(buckets), field.type) for field in schema][:-1]
        return self._session.createDataFrame(pa.table([*columns, pa.array(buckets, pa.int32())], schema=schema))

    def _outcomes(self, frame: DataFrame, progress: Progress) -> Iterator[Outcome]:
        """Run the job, reporting meanwhile, and yield what its tasks say."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(frame.collect)
            try:
                progress.watch(future)
                rows = future.result()
            except (PySparkException, Py4JError, ConnectionError) as error:
                raise _died(error, progress.what) from error
            except BaseException:
                with suppress(Py4JError, ConnectionError):
                    frame.sparkSession.sparkContext.cancelAllJobs()
                raise
        yield from (pickle.loads(row.outcome) for row in rows)


def _died(error: Exception, what: str) -> WorkerDied:
    """Say why Spark gave a job up: the last line of its story that tells a cause."""
    return WorkerDied(
        f"stage {what}: Spark gave up after its retries: {_cause(error)}\n"
        "hint: run the same command again, it goes on; with more executor memory if tasks were killed for it"
    )


def _cause(error: Exception) -> str:
    """Return the last line of an error's story that tells a cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    causes = [line for line in lines if "Error" in line or "Exception" in line or "crashed" in line] or lines
    return causes[-1][:500] if causes else type(error).__name__


def _do_ranks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for rank in _unpickled(batches):
        yield _outcome_batch(do_rank(rank))


def _unpickled(batches: Iterator[pa.RecordBatch]) -> Iterator[Rank]:
    for batch in batches:
        for pickled in batch.column("rank"):
            yield pickle.loads(pickled.as_py())


def _outcome_batch(outcome: Outcome) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"outcome": pa.array([pickle.dumps(outcome)], pa.binary())})


@dataclasses.dataclass(frozen=True, slots=True)
class _ReadRows:
    """Reads the inputs of a group stage: rows of the wanted buckets, each with its bucket."""

    wanted: frozenset[int]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rank in _unpickled(batches):
            for _, work in rank:
                assert isinstance(work, ScatterWork)
                yield from self._rows(work)

    def _rows(self, work: ScatterWork) -> Iterator[pa.RecordBatch]:
        stage, schema = work.stage, _spark_schema(work.stage)
        wanted = pa.array(sorted(self.wanted), pa.int32())
        for record in work.given.files_of(work.commit):
            with work.given.storage.open(record.path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
                for batch in read_batches(parquet, work.limits.max_rows):
                    rows = batch.cast(stage.schema)
                    buckets = pa.array(bucket_of(rows.column(stage.key), stage.buckets), pa.int32())
                    rows = rows.append_column(BUCKET, buckets).cast(schema, safe=False)
                    chosen = pc.is_in(buckets, wanted)
                    yield rows if len(self.wanted) == stage.buckets else rows.filter(chosen)


@dataclasses.dataclass(frozen=True, slots=True)
class _ReduceRows:
    """Reduces one partition, which is one bucket, and commits it."""

    stage: GroupStage
    wanted: Mapping[int, str]
    """Ids of the commits of the buckets that are to be made, by their numbers."""
    output: Storage

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None
        number = context.partitionId()
        if number not in self.wanted:
            return
        outcome = Outcome([])
        try:
            commit = reduce_rows(self.stage, number, self._ordered(batches), self.wanted[number], self.output)
            outcome.commits.append((self.wanted[number], commit))
        except BaseException as error:
            outcome.error = explained(error, f"{self.stage.name}: {bucket_label(number, self.stage.buckets)}")
        yield _outcome_batch(outcome)

    def _ordered(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the bucket's rows. Raises `WorkerDied` unless its end row comes last.

        Where Spark ends a task early it closes the socket, which Arrow takes for the end of the stream.
        """
        ended = False
        for batch in batches:
            if batch.num_rows:
                ended = not batch.column(self.stage.key)[-1].is_valid
                rows = batch.drop_columns([BUCKET]).slice(0, batch.num_rows - ended)
                if rows.num_rows:
                    yield rows.cast(self.stage.schema, safe=False)
        if not ended:
            raise WorkerDied(
                "the rows of the bucket were cut short: Spark has ended the task\nhint: run again, it goes on"
            )


def _spark_schema(stage: GroupStage) -> pa.Schema:
    """Return the schema of a stage's rows on their way through Spark: with their bucket, in types that it has."""
    fields = [pa.field(field.name, _spark_type(field.type)) for field in stage.schema]
    return pa.schema([*fields, pa.field(BUCKET, pa.int32())])


def _spark_type(kind: pa.DataType) -> pa.DataType:
    """Return a type that Spark has: it lacks binary of a fixed length, large lists, and numbers without a sign.

    Those in lists become signed ones of the same bits, in casts that let them; by a list no rows are ordered.
    """
    if pa.types.is_large_list(kind):
        return pa.list_(pa.int64() if kind.value_type == pa.uint64() else _spark_type(kind.value_type))
    return pa.binary() if pa.types.is_fixed_size_binary(kind) else kind
