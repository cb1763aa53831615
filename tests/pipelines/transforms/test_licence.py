"""Licences of files and pages, by hand: which evidence counts, how it is written, and what a list lets through."""

from __future__ import annotations

import gzip
import time

import pyarrow.compute as pc
import pytest
from rows import batch_of, document
from runs import SHARED

from pipelines.errors import RecipeError
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.licence import HEAD_BYTES, Licence, licence_at

MIT = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this software and associated "
    'documentation files (the "Software"), to deal'
)
BSD = "Redistribution and use in source and binary forms, with or without\n * modification, are permitted provided that"
GPL = "This is free software: you can redistribute it under the terms of the GNU General Public License as published by"
ISC = (
    "Permission to use, copy, modify, and/or distribute this software for any\n; purpose with or without fee is hereby"
)
LGPL = GPL.replace("General", "Lesser General")
ENDORSE = " ... Neither the name of X may be used to endorse or promote products derived from this software"
ISC_NOTICE = " granted, provided that the above copyright notice and this permission notice appear in all copies."
LATER = "(at your option) any later version."


def found(text: str | None = None, licence: str | None = None, content: bytes | None = None, **fields) -> tuple:
    batch = batch_of([document(text, natural_key="x", licence=licence, content=content)])
    [row] = Licence(**fields)(batch).to_pylist()
    return row["licence"], row["licence_from"]


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# SPDX-License-Identifier: mit", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0+ */", "GPL-2.0-or-later"),
        ("// spdx-license-identifier:(MIT OR Apache-2.0)\r\n// x", "MIT OR Apache-2.0"),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0-->", "CC-BY-4.0"),
        ("\ufeff(* SPDX-License-Identifier: ISC *)", "ISC"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: ISC OR 0BSD\n", "MIT AND (ISC OR 0BSD)"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: MIT\n", "MIT"),
        (" " * (HEAD_BYTES - 24) + "SPDX-License-Identifier: MIT", "MIT"),
    ],
)
def test_tags(text, licence):
    assert found(text) == (licence, "spdx_tag")


@pytest.mark.parametrize(
    "text",
    [
        None, "", "SPDX-License-Identifier", "SPDX-License-Identifier:", "SPDX-License-Identifier: \nMIT",
        "# SPDX-License-Identifier: NOASSERTION", "pattern = 'SPDX-License-Identifier: ([^ ]+)'",
        " " * HEAD_BYTES + "SPDX-License-Identifier: MIT",
        "Licensed under the same terms as Perl itself", "the licence of the mill", "MIT",
    ],
)  # fmt: skip
def test_nothing(text):
    assert found(text) == (None, None)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# " + MIT.replace("\n", "\n# "), "MIT"),
        ("Use is governed under the MIT license.", "MIT"),
        ("// Licensed under the Apache License, Version 2.0 (the \"License\");", "Apache-2.0"),
        ("/*\n * " + BSD, "BSD-2-Clause"),
        (BSD + ENDORSE, "BSD-3-Clause"),
        (BSD + " 3. All advertising materials mentioning features or use of this software", "BSD-4-Clause"),
        ("; " + ISC + ISC_NOTICE, "ISC"),
        (ISC + " granted.", "0BSD"),
        (GPL + " the Free Software Foundation, either version 3 of the License, or " + LATER, "GPL-3.0-or-later"),
        (GPL + " the FSF; version 2 of the License.", "GPL-2.0-only"),
        (GPL + " the Free Software Foundation", "GPL-1.0-or-later"),
        (LGPL + " the FSF; either version 2.1 of the License, or " + LATER, "LGPL-2.1-or-later"),
        (GPL.replace("General", "Affero General") + " the FSF, version 3 of the License", "AGPL-3.0-only"),
        ("terms of the Mozilla Public License, v. 2.0.", "MPL-2.0"),
        ("Distributed under the Boost Software License, Version 1.0.", "BSL-1.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        (MIT + " ... " + GPL + " the FSF, version 2 of the License, or " + LATER, "MIT AND GPL-2.0-or-later"),
    ],
)  # fmt: skip
def test_notices(text, licence):
    assert found(text) == (licence, "notice")


def test_the_most_exact_evidence_counts(tmp_path):
    tag = "# SPDX-License-Identifier: MIT\n"
    assert found(tag + BSD, "GPL-3.0") == ("MIT", "spdx_tag")
    assert found(BSD, "GPL-3.0") == ("GPL-3.0-only", "declared")
    assert found("x", "the mit license") == ("MIT", "declared")
    assert found(BSD, "see file COPYING") == ("BSD-2-Clause", "notice")
    assert found("x", "see file COPYING") == ("see file COPYING", None)  # it stays, and is unknown
    (tmp_path / "map.tsv").write_text("file\tISC\n")
    assert found(tag, files=GivenFile.of(tmp_path / "map.tsv")) == ("ISC", "map")


COMMONS = b"https://creativecommons.org/licenses/by-sa/4.0/"


@pytest.mark.parametrize(
    ("page", "licence"),
    [
        (b"<a rel=license href=%s>" % COMMONS, "CC-BY-SA-4.0"),
        (b"<link href='//creativecommons.org/licenses/BY-NC/3.0/de/deed.de' rel='License'>", "CC-BY-NC-3.0-DE"),
        (b"<a rel=license href=http://creativecommons.org/publicdomain/zero/1.0/>", "CC0-1.0"),
        (b"<meta name=dcterms.license content=%s>" % COMMONS, "CC-BY-SA-4.0"),
        (b"<a rel=license href=https://opensource.org/licenses/MIT>" * 3, "MIT"),
        ("<a rel=license href=https://www.gnu.org/licenses/fdl-1.3.html>".encode("utf-16"), None),
        ("<a rel=license href=https://www.gnu.org/licenses/gpl-3.0.html>".encode("utf-16"), "GPL-3.0-only"),
        (b"<a rel=license href=/terms>", None),
        (b"<a rel=license href=%s><a rel=license href=https://opensource.org/licenses/MIT>" % COMMONS, None),
        (b"<a href=%s>" % COMMONS, None),
        (b"<!-- <a rel=license href=%s> -->" % COMMONS, None),
    ],
)
def test_pages(page, licence):
    assert found(content=page) == (licence, licence and "page")


def test_mentions_are_evidence_only_if_asked_for():
    text = "The photograph is under https://creativecommons.org/licenses/by/2.0/."
    assert found(text) == (None, None)
    assert found(text, mentions=True) == ("CC-BY-2.0", "mention")
    assert found(text + COMMONS.decode(), mentions=True) == (None, None)
    assert found(content=b"<a href=%s>" % COMMONS, mentions=True) == ("CC-BY-SA-4.0", "mention")


@pytest.mark.parametrize(
    ("address", "licence"),
    [
        ("HTTPS://OPENSOURCE.ORG/licenses/mit", "MIT"), ("opensource.org/licenses/mit-license.php", "MIT"),
        ("https://opensource.org/licenses/", None), ("https://opensource.org/licenses/alphabetical", None),
        ("http://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("https://spdx.org/licenses/BSD-3-Clause.html", "BSD-3-Clause"),
        ("https://www.gnu.org/licenses/old-licenses/gpl-2.0.en.html#SEC1", "GPL-2.0-only"),
        ("https://evil.example/?https://opensource.org/licenses/MIT", None), ("", None), ("x" * 10_000, None),
    ],
)  # fmt: skip
def test_addresses(address, licence):
    assert licence_at(address) == licence


def test_the_list_and_the_ledgers_reasons():
    rows = [
        document(f"# SPDX-License-Identifier: {one}") for one in ("MIT", "GPL-3.0", "MIT OR GPL-3.0", "MIT AND GPL-3.0")
    ]
    batch = batch_of([*rows, document("x"), document("y", licence="permissive? no")])

    def reasons(**fields):
        return [verdict and verdict["reason"] for verdict in Licence(**fields)(batch).column("verdict").to_pylist()]

    bad, unknown = "licence.not_allowed", "licence.unknown"
    assert reasons() == [None] * 6
    assert reasons(allow=("permissive",)) == [None, bad, None, bad, None, None]
    assert reasons(allow=("mit", "gpl-3.0"), unknown="drop") == [None] * 4 + [unknown] * 2
    verdict = Licence(allow=("MIT",))(batch).column("verdict")[1].as_py()
    assert verdict == {"outcome": "dropped", "reason": bad, "value": "GPL-3.0-only", "threshold": "MIT"}


def test_the_map(tmp_path):
    lines = "# who looked: us\na/b.py\tMIT\na/\tISC # all the rest\na/c/\tGPL-2.0 OR MIT\n"
    (tmp_path / "map.gz").write_bytes(gzip.compress(lines.encode()))
    paths = ["a/b.py", "a/x.py", "a/c/d/e.py", "b/a/x.py", "a", "x.py", "a/b.pyx"]
    batch = batch_of([document("x", natural_key=path, origin_path=path) for path in paths])
    result = Licence(files=GivenFile.of(tmp_path / "map.gz"))(batch)
    expected = ["MIT", "ISC", "GPL-2.0-only OR MIT", None, None, None, "ISC"]
    assert result.column("licence").to_pylist() == expected
    for wrong in ("a.py MIT", "a.py\t", "a.py\t<b>", "\tMIT OR"):
        (tmp_path / "wrong").write_text(wrong)
        with pytest.raises(RecipeError, match="names no SPDX expression"):
            Licence(files=GivenFile.of(tmp_path / "wrong"))(batch)


@pytest.mark.parametrize("fields", [{"allow": ("MIT OR ISC",)}, {"allow": ("",)}, {"unknown": "x"}])
def test_wrong_fields(fields):
    with pytest.raises(ValueError, match="allow|unknown"):
        Licence(**fields)


def test_hostile_texts_cost_what_their_heads_do():
    texts = [
        "SPDX-License-Identifier:" * 400_000,
        "x" * 10_000_000,
        "\0" * 10_000_000,
        "creativecommons.org/licenses/by" * 300_000,
    ]
    batch = batch_of(
        [document(text, natural_key=str(place), licence="(" * 5_000_000) for place, text in enumerate(texts)]
    )
    Licence(mentions=True)(batch.slice(0, 0))
    start = time.process_time()
    assert Licence(mentions=True)(batch).column("licence_from").null_count == 4
    assert time.process_time() - start < 3


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
def test_real_pages():
    """Of the archive's blogs and articles, 31 link to their licence with `rel`; three of them read by eye."""
    storage = LocalStorage(SHARED / "warc/built_from_real_html")
    source = CommonCrawl(name="web", include=("trafilatura-eval-00000.warc.gz",))
    batches = [
        batch for split in source.splits(storage) for batch in source.read(split, storage, BatchLimits(), RawAccount())
    ]
    found = {}
    for batch in batches:
        result = Licence()(batch)
        known = result.filter(pc.is_valid(result.column("licence_from")))
        found |= dict(zip(known.column("url").to_pylist(), known.column("licence").to_pylist(), strict=True))
    assert len(found) == 31
    assert found["https://en.wikipedia.org/wiki/T-distributed_stochastic_neighbor_embedding"] == "CC-BY-SA-3.0"
    assert found["https://blogoff.de/2015/11/12/i-htm/"] == "CC-BY-NC-SA-2.0-DE"
    assert found["https://flowfx.de/blog/copy-paste-from-tmux-to-system-clipboard/"] == "CC-BY-4.0"
    assert all(licence.startswith("CC-BY-") for licence in found.values())
