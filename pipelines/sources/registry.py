"""Every kind of source by the word that a recipe uses for it."""

from __future__ import annotations

from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.conversations import Conversations
from pipelines.sources.source import Source
from pipelines.sources.source_code import Code
from pipelines.sources.tables import Table
from pipelines.sources.wat import Wat

SOURCES: dict[str, type[Source]] = {
    CommonCrawl.kind: CommonCrawl,
    Wat.kind: Wat,
    Table.kind: Table,
    Code.kind: Code,
    Conversations.kind: Conversations,
}
"""The class for each `kind`; its fields are the keys that the recipe may set."""
