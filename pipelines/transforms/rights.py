"""Rights: who asked to be left out, by lists and by what page and server themselves say.

**Lists**: `opt_out` and `takedown`, domains and addresses (`addresses.py`, `lists.py`).

**Signals**, found in the stored HTTP headers and in the payload (`page_tags.py`), of which those in `drop` drop a page
and all are told in the column `rights_signals`:

- `noai`, `noimageai`: directives of `X-Robots-Tag` or of `<meta name=robots>`, as DeviantArt introduced them in 2022.
  Also `noai`: a `noindex`, `none` or `noai` that is addressed to one of `agents`, crawlers that collect for training
  (a header "ccbot: noindex", or `<meta name=ccbot content=noindex>`). What is addressed to others is not ours;
- `tdm-reservation`: the header or `<meta name=tdm-reservation>` is 1 (TDM Reservation Protocol of the W3C's community
  group, 2024): the machine-readable reservation that article 4 of the EU's directive 2019/790 speaks of;
- `noindex` (also of `none`) and `noarchive`, addressed to all. They are about search results and their cached copies;
  among search engines Bing has said (2023) that it trains on no page with `noarchive`. By default they are told and
  drop nothing.

By default `noai` and `tdm-reservation` drop. Neither robots.txt nor /.well-known/tdmrep.json is in a page's record: put
the hosts that forbid you by these on the `opt_out` list. Stand the step before `extract`, which sets the payload to
null; behind it, lists and headers are all there is.

Cost: see docs/rights-and-urls.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transform import Evidence
from pipelines.transforms.addresses import address_list, normalised_addresses
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.named_rules import NamedRule, evidence_of, with_verdicts
from pipelines.transforms.page_tags import MAX_VALUE, declarations

SIGNALS = ("noai", "tdm-reservation", "noimageai", "noindex", "noarchive")
"""In the order in which they become the reason, and in which the column has them."""

AGENTS = (
    *("ai2bot", "amazonbot", "anthropic-ai", "applebot-extended", "bytespider", "ccbot", "claudebot", "cohere-ai"),
    *("diffbot", "facebookbot", "google-extended", "gptbot", "meta-externalagent", "omgili", "omgilibot", "pangubot"),
)
"""Crawlers and tokens that their operators name for the collection of training data, or that gather data for others."""

ROBOTS_HEADER, TDM = "x-robots-tag", "tdm-reservation"
_PARAMETERS = ("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after")
"""Directives whose value stands behind a colon, as a directive does behind a crawler's name."""
_AGENT = re.compile(r"[a-z][a-z0-9_.-]*")
_DIVIDED = re.compile(r"[,;\s]+")

UNLISTED = "not listed"


@dataclasses.dataclass(frozen=True, slots=True)
class Rights:
    """Drops what opted out or was taken down; adds the signals of every page.

    Reasons, of which the first that holds is the verdict's: `rights.takedown`, `rights.opt_out`, then `rights.SIGNAL`
    ("-" written as "_").
    """

    name: ClassVar[str] = "rights"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema(
        [pa.field("rights_signals", pa.list_(pa.string()))]  # of SIGNALS, in their order; null = none
    )
    drops: ClassVar[tuple[str, ...]] = ()
    before_extract: ClassVar[bool] = True

    opt_out: tuple[GivenFile, ...] = ()
    """Those who asked not to be used."""
    takedown: tuple[GivenFile, ...] = ()
    """What has to go by law or contract."""
    drop: tuple[str, ...] = ("noai", "tdm-reservation")
    """Signals that drop a page; the others are told."""
    agents: tuple[str, ...] = AGENTS
    """Crawlers whose directives are yours."""

    def __post_init__(self) -> None:
        """Refuse signals that there are none of, and names that no crawler can have. Raises `ValueError`."""
        for signal in self.drop:
            if signal not in SIGNALS:
                raise ValueError(f"drop: found {signal!r}, allowed are {', '.join(SIGNALS)}")
        for agent in self.agents:
            if not _AGENT.fullmatch(agent) or agent in ("robots", TDM):
                raise ValueError(f"agents: {agent!r} names no crawler\nhint: a name in lower case, for example ccbot")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Find the signals, and set the verdict of what may not be used. Raises `RecipeError` for a bad list."""
        bits = self._signals(batch)
        unique, places = np.unique(bits, return_inverse=True)
        named = [[signal for k, signal in enumerate(SIGNALS) if one >> k & 1] or None for one in unique.tolist()]
        column = pa.array(named, self.adds.field(0).type).take(pa.array(places))
        return with_verdicts(batch, self._rules(batch, bits)).append_column(self.adds.field(0), column)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return the entry of each list, and each signal, that is about a row."""
        return evidence_of(batch.num_rows, self._rules(batch, self._signals(batch)))

    def _rules(self, batch: pa.RecordBatch, bits: np.ndarray) -> list[NamedRule]:
        rules = []
        if self.takedown or self.opt_out:
            addresses = normalised_addresses(batch.column("url"))
            for reason, files in (("takedown", self.takedown), ("opt_out", self.opt_out)):
                listed = address_list(files)
                found = listed.find(addresses)
                under = (found.domains >= 0) | (found.urls >= 0)
                rules.append(
                    NamedRule(
                        f"rights.{reason}",
                        under,
                        lambda row, listed=listed, found=found: listed.entry(found, row),  # type: ignore[misc]
                        UNLISTED,
                    )
                )
        for k, signal in enumerate(SIGNALS):
            has = (bits >> k & 1).astype(bool)
            reason = f"rights.{signal.replace('-', '_')}"
            rules.append(NamedRule(reason, has, lambda row, signal=signal: signal, "absent", signal in self.drop))  # type: ignore[misc]
        return rules

    def _signals(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return the signals of every row as bits, in the order of `SIGNALS`: int64, shape (rows,)."""
        bits = np.zeros(batch.num_rows, np.int64)
        for row, name, value in _headers(batch):
            bits[row] |= _reserved(value) if name == TDM else self._directives(value)
        for row, name, value in declarations(batch, ("robots", TDM, *self.agents), links=False):
            if name == TDM:
                bits[row] |= _reserved(value)
            else:
                for word in _DIVIDED.split(value.lower()):
                    bits[row] |= self._directive("" if name == "robots" else name, word)
        return bits

    def _directives(self, header: str) -> int:
        """Return the signals of an `X-Robots-Tag`: a crawler's name and a colon are about what stands behind them."""
        agent, bits = "", 0
        for word in _DIVIDED.split(header.lower()):
            name, colon, rest = word.partition(":")
            if colon and name in _PARAMETERS:
                continue
            if colon and _AGENT.fullmatch(name):
                agent, word = name, rest
            bits |= self._directive(agent, word)
        return bits

    def _directive(self, agent: str, word: str) -> int:
        """Return the bit of a directive to a crawler ("": all of them)."""
        if agent in self.agents and word in ("noindex", "none", "noai"):
            return 1 << SIGNALS.index("noai")
        if agent and agent not in self.agents:
            return 0
        word = "noindex" if word == "none" else word
        return 1 << SIGNALS.index(word) if word in SIGNALS and word != TDM else 0


def _reserved(value: str) -> int:
    return 1 << SIGNALS.index(TDM) if value.strip() == "1" else 0


def _headers(batch: pa.RecordBatch) -> Iterator[tuple[int, str, str]]:
    """Yield row, lower-case name and value of the headers that may hold a signal."""
    column = batch.column("http_headers")
    if column.null_count == len(column):
        return
    fields = pc.list_flatten(column)
    names = pc.ascii_lower(pc.utf8_trim_whitespace(fields.field("name")))
    asked = pc.is_in(names, value_set=pa.array([ROBOTS_HEADER, TDM]))
    rows = pc.list_parent_indices(column).filter(asked).to_pylist()
    values = fields.field("value").filter(asked).to_pylist()
    for row, name, value in zip(rows, names.filter(asked).to_pylist(), values, strict=True):
        yield row, name, (value or "")[:MAX_VALUE]
