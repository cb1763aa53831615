"""SPDX expressions: one form, whatever the spelling, and what a list of allowed licences makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.licenses import canonicalize_license_expression

from pipelines.transforms.spdx import OTHERS, PERMISSIVE, is_allowed, normalised


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("mit", "MIT"),
        ("  MIT\t OR  apache-2.0 ", "MIT OR Apache-2.0"),
        ("(mit and (gpl-2.0+ or bsd-3-clause))", "MIT AND (GPL-2.0-or-later OR BSD-3-Clause)"),
        ("((GPL-2.0 WITH Linux-syscall-note) OR MIT)", "GPL-2.0-only WITH Linux-syscall-note OR MIT"),
        ("MIT OR (ISC OR Zlib)", "MIT OR ISC OR Zlib"),  # OR in OR needs no brackets
        ("MIT AND ISC OR Zlib", "MIT AND ISC OR Zlib"),  # AND binds more
        ("LGPL-2.1", "LGPL-2.1-only"),  # the deprecated name
        ("Apache-2.0+", "Apache-2.0+"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),  # Cargo
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("cc by-sa 3.0", "CC-BY-SA-3.0"),
        ("CC-BY-SA-3.0-de", "CC-BY-SA-3.0-DE"),
        ("LicenseRef-mine", "LicenseRef-mine"),
        ("(" * 16 + "MIT" + ")" * 16, "MIT"),
    ],
)
def test_one_form(written, form):
    assert normalised(written) == form
    assert normalised(form) == form


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "a b", "MIT OR", "OR MIT", "AND", "MIT WITH", "(MIT", "MIT)", "()", "NOASSERTION", "none", "<b>MIT"),
        *("(" * 18 + "MIT" + ")" * 18, "(" * 300, "M" * 257, "MIT\0", "Лицензия", "MIT " * 99),
    ],
)
def test_what_is_none(written):
    assert normalised(written) is None
    assert not is_allowed(written, {"mit"})


def test_allowed():
    """By hand: OR needs one side, AND both, an exception only adds rights."""
    allowed = {"mit", "apache-2.0"}
    for expression, held in (
        ("MIT", True), ("GPL-3.0-only OR MIT", True), ("GPL-3.0-only AND MIT", False), ("MIT AND Apache-2.0", True),
        ("MIT AND (GPL-3.0-only OR Apache-2.0)", True), ("ISC", False), ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False), ("Apache-2.0+", True),
    ):  # fmt: skip
        assert is_allowed(expression, allowed) == held, expression


def test_every_name_is_on_the_list_as_another_reader_of_it_has_it():
    assert [canonicalize_license_expression(name.lower()) for name in (*PERMISSIVE, *OTHERS)] == [*PERMISSIVE, *OTHERS]
    assert len({*PERMISSIVE, *OTHERS}) == len(PERMISSIVE) + len(OTHERS)


@given(
    st.recursive(
        st.sampled_from(["mit", "ISC", "zlib", "MPL-2.0", "ncsa"]),
        lambda inner: st.tuples(inner, st.sampled_from([" OR ", " AND "]), inner).map(
            lambda p: f"({p[0]}{p[1]}{p[2]})"
        ),
        max_leaves=8,
    )
)
def test_the_form_means_what_was_written(expression):
    """Python's own `and` and `or` decide; another reader accepts the form as it stands."""
    form = normalised(expression)
    assert canonicalize_license_expression(form) == form
    allowed = {"isc", "mpl-2.0"}
    python = " ".join(
        {"OR": "or", "AND": "and"}.get(word, word) if word in ("(", ")", "OR", "AND") else str(word.lower() in allowed)
        for word in expression.replace("(", " ( ").replace(")", " ) ").split()
    )
    assert is_allowed(expression, allowed) == is_allowed(form, allowed) == eval(python)


@given(st.text())
def test_any_text(text):
    assert normalised(text) is None or normalised(normalised(text)) == normalised(text)
