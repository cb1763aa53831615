"""rensa's near-deduplication of Parquet files as its readers write it: a greedy loop; run in the peers' environment.

    python rensa_dedup.py FOLDER OUTPUT [signatures]

FOLDER holds files with the columns id and text; OUTPUT/kept.parquet gets the rows that are kept. Shingles are sets of 5
words in lower case, made in Python. The last line of output has CPU seconds: of shingling and signatures, of the whole
loop, and of reading and writing. With `signatures` only the first are measured, the LSH index is left out.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rensa import RMinHash, RMinHashLSH

NUM_HASHES, NUM_BANDS, NGRAM, SEED = 112, 14, 5, 42
THRESHOLD = 0.7
"""That the index is told; it proposes by bands alone."""
WORD = re.compile(r"\w+")


def main(folder: str, output: str, only: str = "") -> None:
    """Read, deduplicate, write."""
    start = time.process_time()
    table = pa.concat_tables(pq.read_table(path) for path in sorted(Path(folder).glob("*.parquet")))
    texts = table.column("text").to_pylist()
    read = time.process_time()
    if only:
        for text in texts:
            signature_of(text)
        print(time.process_time() - read)
        return
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=NUM_HASHES, num_bands=NUM_BANDS)
    kept = []
    for number, text in enumerate(texts):
        signature = signature_of(text)
        if not index.query(signature):
            index.insert(number, signature)
            kept.append(number)
    looped = time.process_time()
    Path(output).mkdir()
    pq.write_table(table.take(kept), f"{output}/kept.parquet")
    print(looped - read, time.process_time() - looped + read - start, len(kept))


def signature_of(text: str) -> RMinHash:
    """Return the MinHash of a text's shingles; of fewer words, one shingle of all."""
    words = WORD.findall(text.lower())
    runs = zip(*(words[at:] for at in range(NGRAM)), strict=False) if len(words) > NGRAM else [words]
    signature = RMinHash(num_perm=NUM_HASHES, seed=SEED)
    signature.update(list(set(map(" ".join, runs))))
    return signature


if __name__ == "__main__":
    main(*sys.argv[1:])
