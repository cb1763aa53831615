"""What a run shows in the terminal: tables of where everything went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipelines.commit import faults_of
from pipelines.engines.engine import StageResult
from pipelines.errors import visible
from pipelines.explain import Explanation
from pipelines.ledger import stage_total
from pipelines.plan import Plan
from pipelines.replay import Replay
from pipelines.run import Part, RunResult
from pipelines.sources.source import Split
from tokenizer.terminal import make_table, numbers


def show_plan(plan: Plan, splits: Mapping[str, list[Split]], console: Console) -> None:
    """Show what a run would do: splits and bytes by source, stages with their tables and columns."""
    sources = make_table("source", "reader", "splits>", "files>", "bytes>", "transforms")
    for entry in plan.recipe.sources:
        some = splits[entry.source.name]
        files = {file for split in some for file in split.files}
        steps = ", ".join(step.name for step in entry.transforms) or "-"
        size = sum(file.size for file in files)
        sources.add_row(entry.source.name, entry.source.kind, *numbers(len(some), len(files), size), steps)
    stages = make_table("stage", "writes", "columns")
    for stage in plan.stages:
        for output in stage.outputs:
            stages.add_row(stage.name, output.table, ", ".join(output.schema.names))
    console.print(sources, stages)
    console.print(f"recipe fingerprint {plan.fingerprint}; nothing was written", highlight=False)


def show_summary(plan: Plan, result: RunResult, output: str, console: Console) -> None:
    """Show documents and bytes by stage, what was dropped and why, tokens by source, and where the result lies."""
    console.print(_stages(plan, result.ledger), _losses(result.ledger), _tokens(plan, result.ledger))
    for warning in result.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    console.print(
        f"{result.num_done} splits and buckets done, {result.num_found} found committed. "
        f"Token shards in {output}/tokens, documents and rejects in {output}/stages, ledger in "
        f"{output}/ledger.parquet.",
        highlight=False,
        soft_wrap=True,
    )


def show_part(part: Part, done: StageResult, console: Console) -> None:
    """Show what a run of one part of the input did."""
    if faults := faults_of(done.commits):
        console.print(
            f"warning: {sum(faults.values())} documents in {len(faults)} splits met a time limit; a later run tries "
            "them anew",
            style="yellow",
            highlight=False,
        )
    console.print(
        f"part {part}: {done.num_done} splits read, {done.num_found} found committed; "
        "when all parts are done, run the recipe without --part",
        highlight=False,
        soft_wrap=True,
    )


def show_explanation(explanation: Explanation, console: Console) -> None:
    """Show one document's way: where it comes from, each rule's value and threshold, where it ended."""
    console.print(f"{explanation.doc_id} {explanation.end}", highlight=False, soft_wrap=True)
    for name, value in explanation.facts.items():
        console.print(visible(f"  {name:12} {value}"), highlight=False, soft_wrap=True)
    table = make_table("stage", "step", "rule", "value", "threshold", "verdict")
    for row in explanation.rows:
        cells = (row.stage, row.step, row.rule, row.value, row.threshold, row.verdict)
        table.add_row(*(visible(cell) for cell in cells))
    console.print(table)


def show_replay(replayed: Replay, console: Console) -> None:
    """Show where a document's bytes lie, the text that came out, and that the shard holds the same ids."""
    console.print(f"{replayed.doc_id} {replayed.source}", highlight=False)
    for name, value in replayed.origin.items():
        if value is not None:
            console.print(visible(f"  {name:14} {value}"), highlight=False, soft_wrap=True)
    console.print(visible(replayed.text), highlight=False, soft_wrap=True)
    console.print(
        f"{len(replayed.ids):,} tokens, the same as document {replayed.place:,} of {visible(str(replayed.shard))}",
        highlight=False,
        soft_wrap=True,
    )


def _stages(plan: Plan, ledger: pa.Table) -> Table:
    table = make_table("stage", "source", "documents in>", "documents out>", "text bytes out>", "stopped>")
    for stage in plan.document_stages:
        took_in = stage_total(ledger, stage, last=False)
        put_out = stage_total(ledger, stage, last=True)
        for source in sorted(took_in):
            rows, size = put_out.get(source, (0, 0))
            table.add_row(stage, source, *numbers(took_in[source][0], rows, size, took_in[source][0] - rows))
    return table


def _losses(ledger: pa.Table) -> Table:
    sums: dict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in ledger.to_pylist():
        if row["account"] in ("dropped", "errored", "merged"):
            total = sums[row["source"], row["transform"], row["account"], row["reason"]]
            total[0] += row["rows"]
            total[1] += row["bytes"]
    table = make_table("source", "step", "account", "reason", "documents>", "text bytes>")
    for (source, step, account, reason), (rows, size) in sorted(
        sums.items(), key=lambda item: (item[0][0], -item[1][0])
    ):
        table.add_row(source, step, account, reason, *numbers(rows, size))
    return table


def _tokens(plan: Plan, ledger: pa.Table) -> Table:
    sums: dict[str, list[int]] = {entry.source.name: [0, 0, 0] for entry in plan.recipe.sources}
    for row in ledger.to_pylist():
        if row["table"] == "tokens" and row["account"] == "out":
            for place, column in enumerate(("rows", "bytes", "tokens")):
                sums[row["source"]][place] += row[column]
    table = make_table("source", "documents>", "text bytes>", "tokens>", "bytes a token>")
    sums["total"] = [sum(column) for column in zip(*sums.values(), strict=True)]
    for source, (rows, size, tokens) in sums.items():
        table.add_row(source, *numbers(rows, size, tokens), f"{size / tokens:.2f}" if tokens else "-")
    return table
