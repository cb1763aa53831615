"""WARC files to Parquet documents with datatrove's own steps and no other filters; run in the peers' environment.

    python datatrove_documents.py FOLDER GLOB OUTPUT MODEL LIMIT

FOLDER holds the archives, MODEL is lid.176 (.ftz or .bin), LIMIT the most pages of each file, -1 = all. One worker, in
this process; the Trafilatura step has a sandbox process of its own. All is as by default, but for two things that would
cost datatrove pages here: the timeout is 10 s instead of 1 s, for a busy machine, and texts that were seen before are
not cut (`deduplicate`), for files that are read several times. Statistics are left in OUTPUT/logs/stats.json.
"""

from __future__ import annotations

import os
import sys


def main(folder: str, pattern: str, output: str, model: str, limit: str) -> None:
    """Run the pipeline."""
    os.environ["HF_ASSETS_CACHE"] = f"{output}/assets"  # where datatrove copies the model to
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import LanguageFilter
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.lid import FT176LID

    FT176LID.MODEL_URL = model  # would be downloaded else
    LocalPipelineExecutor(
        pipeline=[
            WarcReader(folder, glob_pattern=pattern, limit=int(limit)),
            Trafilatura(timeout=10, deduplicate=False),
            LanguageFilter(),
            ParquetWriter(f"{output}/documents"),
        ],
        tasks=1,
        workers=1,
        logging_dir=f"{output}/logs",
    ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
