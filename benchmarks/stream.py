"""What the way from shards to batches costs, in CPU seconds of one run: counting sequences, and sequences themselves.

    python benchmarks/stream.py [--documents N] [--json FILE]

Lengths are generated: lognormal, median 600 and mean 1,170 tokens. `pack index`: million documents a second through the
counting kernel, in windows of 20,000, at 8k and 32k. `first`: milliseconds for one sequence at a random position of a
stream whose window cache is empty. `in order`: microseconds a sequence in stream order, in batches of 64, windows read
on the way, for a mixture of three sources. Its `limit` copies as many bytes as a batch has, out of the mapped shards.
Kernels are compiled, the page cache is warm.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))
from plans import made_documents, write_mixture, write_planned, write_tokens

from mixtures.packing import count_sequences_of_windows, window_bounds
from mixtures.plan import Plan
from trainer_bridge.stream import Stream

MEDIAN, MEAN = 600, 1_170
LENGTHS = (8_192, 32_768)
ROUNDS = 5
BATCH = 64


def main() -> None:
    """Measure, print a table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=60_000, help="documents on disk, over three sources")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    result = {f"pack index {length}": pack_index_rate(length) for length in LENGTHS}
    with tempfile.TemporaryDirectory() as folder:
        for length in LENGTHS:
            plan = make_plan(Path(folder) / str(length), arguments.documents, length)
            result |= {f"{name} {length}": row for name, row in stream_costs(plan).items()}
    for name, row in result.items():
        print(f"{name:20}" + "".join(f"{key} {value:,.2f}   " for key, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def lengths_of(count: int, seed: int) -> np.ndarray:
    """Return token counts of web-like documents (int32)."""
    sigma = np.sqrt(2 * np.log(MEAN / MEDIAN))
    lengths = np.random.default_rng(seed).lognormal(np.log(MEDIAN), sigma, count)
    return np.maximum(lengths, 1).astype(np.int32)


def pack_index_rate(length: int) -> dict[str, float]:
    """Measure the kernel that counts the sequences of windows."""
    lengths = lengths_of(2_000_000, 1)
    bounds = window_bounds(len(lengths), 20_000)
    cpu_s, sequences = best(lambda: count_sequences_of_windows(lengths, bounds, length, 0, True))
    room = int(sequences.sum(dtype=np.int64)) * length
    return {
        "million_documents_per_s": len(lengths) / cpu_s / 1e6,
        "padding_percent": 100 - 100 * lengths.sum(dtype=np.int64) / room,
    }


def make_plan(folder: Path, documents: int, length: int) -> Plan:
    """Write shards of three sources and plan them: 8/10 text, 1/10 code, 1/10 more text."""
    folder.mkdir()
    sources = {}
    for name, kind, share in (("web", "text", 8), ("code", "code", 1), ("books", "text", 1)):
        lengths = lengths_of(documents * share // 10, len(name))
        sources[name] = (write_tokens(folder / "out", name, made_documents(name, lengths.tolist()), shards=3), kind)
    settings = {"phases": [{"length": length, "global_batch": 64}], "validation": {"share": "1/200"}}
    return Plan.load(write_planned(write_mixture(folder, sources, **settings)))


def stream_costs(plan: Plan) -> dict[str, dict[str, float]]:
    """Measure single sequences from an empty cache, and whole batches in order."""
    stream = Stream(plan)
    stream.batch(0, BATCH)  # compiles, warms the page cache for what follows
    for first in range(0, len(stream) - BATCH, BATCH):
        stream.batch(first, BATCH)
    return {"first": first_costs(plan), "in order": order_costs(plan)}


def first_costs(plan: Plan) -> dict[str, float]:
    """Return milliseconds of CPU for one sequence each of 30 positions, with no window open."""
    cpu_ms = []
    for position in np.random.default_rng(5).integers(0, plan.sequences, 30).tolist():
        stream = Stream(plan)
        stream.places(0, 1)
        start = time.process_time()
        stream.sequence(position)
        cpu_ms.append(1000 * (time.process_time() - start))
    return {"median_ms": float(np.median(cpu_ms)), "max_ms": max(cpu_ms)}


def order_costs(plan: Plan) -> dict[str, float]:
    """Return microseconds of CPU a sequence over the whole plan in order, from an empty cache, and of the limit."""
    batches = plan.sequences // BATCH

    def run() -> None:
        stream = Stream(plan)
        for number in range(batches):
            stream.batch(number * BATCH, BATCH)

    cpu_s, _ = best(run, 3)
    limit_s, _ = best(lambda: copy_limit(plan, batches), 3)
    micros = 1e6 / (batches * BATCH)
    return {"us_per_sequence": cpu_s * micros, "limit_us": limit_s * micros, "ratio_to_limit": cpu_s / limit_s}


def copy_limit(plan: Plan, batches: int) -> None:
    """Copy the bytes of as many batches (tokens, labels, weights, positions) from a mapped shard, nothing else."""
    length = plan.phases[0].length
    shard = Stream(plan).documents(0, 0).mapped(0).tokens
    rows = len(shard) // length
    for _ in range(batches):
        tokens, labels, positions = (np.empty((BATCH, length), np.int32) for _ in range(3))
        weights = np.empty((BATCH, length), np.int16)
        for row in range(BATCH):
            tokens[row] = labels[row] = positions[row] = shard[row % rows * length :][:length]
            weights[row] = 256


def best(work: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, object]:
    """Return the least CPU seconds of some rounds after one that compiles, and the last result."""
    work()
    seconds, result = [], None
    for _ in range(rounds):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


if __name__ == "__main__":
    main()
