"""datatrove's near-deduplication of Parquet files, its four steps with its own defaults; run in the peers' environment.

    python datatrove_dedup.py FOLDER OUTPUT [signatures]

FOLDER holds files with the columns id and text. One task reads, one worker does everything, in this process. OUTPUT
gets `signatures`, `buckets`, `clusters` (with cluster ids), `kept` and `removed`. With `signatures` the documents are
read before, only `MinhashDedupSignature`'s two functions run on each, and the last line of output has the CPU seconds.
"""

from __future__ import annotations

import sys
import time

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter


def main(folder: str, output: str, only: str = "") -> None:
    """Run the steps one after the other, or only what makes signatures."""
    if only:
        step = MinhashDedupSignature(f"{output}/signatures")
        documents = list(ParquetReader(folder)())
        step.get_signature(step.get_shingles(documents[0].text))
        start = time.process_time()
        for document in documents:
            shingles = step.get_shingles(document.text)
            if shingles.size:
                step.get_signature(shingles)
        print(time.process_time() - start)
        return
    run(output, 1, 1, [ParquetReader(folder), MinhashDedupSignature(f"{output}/signatures")])
    num_buckets = MinhashConfig().num_buckets
    run(output, 2, num_buckets, [MinhashDedupBuckets(f"{output}/signatures", f"{output}/buckets")])
    run(output, 3, 1, [MinhashDedupCluster(f"{output}/buckets", f"{output}/clusters", save_cluster_id=True)])
    removed = ParquetWriter(f"{output}/removed")
    filter_ = MinhashDedupFilter(f"{output}/clusters", exclusion_writer=removed)
    run(output, 4, 1, [ParquetReader(folder), filter_, ParquetWriter(f"{output}/kept")])


def run(output: str, number: int, tasks: int, pipeline: list[PipelineStep]) -> None:
    """Run one of the four steps with one worker."""
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{output}/logs/{number}").run()


if __name__ == "__main__":
    main(*sys.argv[1:])
