"""Where names, values, comments and raw text end: by hand, by regular expressions, and never behind the data."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.main_content.lexer import is_letter, is_space, read_name, read_value, skip_comment, skip_raw_text
from pipelines.main_content.tags import name_hash


def bytes_of(text: str) -> np.ndarray:
    """Return a text as the kernels take it."""
    return np.frombuffer(text.encode(), np.uint8)


def test_letters_and_spaces_of_ascii() -> None:
    assert [chr(byte) for byte in range(256) if is_letter(byte)] == [
        *"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    ]
    assert [byte for byte in range(256) if is_space(byte)] == [9, 10, 12, 13, 32]


@pytest.mark.parametrize(
    ("text", "is_attribute", "name", "end", "has_hyphen"),
    [
        ("div>", False, "div", 3, False),
        ("DiV class", False, "div", 3, False),
        ("h1/", False, "h1", 2, False),
        ("my-part\n", False, "my-part", 7, True),
        ("a=b", True, "a", 1, False),
        ("a=b", False, "a=b", 3, False),
        ('"x"=1', True, '"x"', 3, False),
        ("p", False, "p", 1, False),
        ("", False, "", 0, False),
    ],
)
def test_names(text: str, is_attribute: bool, name: str, end: int, has_hyphen: bool) -> None:
    assert read_name(bytes_of(text), 0, is_attribute) == (name_hash(name), end, has_hyphen)


@pytest.mark.parametrize(
    ("text", "value", "behind"),
    [
        ("=x y", "x", 2),
        ('="x y" z', "x y", 6),
        ("='a\"b'>", 'a"b', 6),
        (" \n = \t x>", "x", 8),
        ("= 'x", "x", 4),
        ("=", "", 1),
        ("=>", "", 1),
        (" y", "", 0),
        (">", "", 0),
        ("", "", 0),
        ("=a=b/c>", "a=b/c", 6),
        ('="">', "", 3),
    ],
)
def test_values(text: str, value: str, behind: int) -> None:
    start, stop, at = read_value(bytes_of(text), 0)
    assert (text[start:stop], at) == (value, behind)


# what follows "<!", "<?" or "</" -> what is left behind it
COMMENTS = {
    "!-- a --> b": " b",
    "!--> b": " b",
    "!---> b": " b",
    "!----> b": " b",
    "!-- a -- > b --> c": " c",
    "!-- a --!> b": " b",
    "!--!> b --> c": " c",
    "!---!> b --> c": " c",
    "!-- <!-- a --> b -->": " b -->",
    "!-- never": "",
    "!doctype html> b": " b",
    "![CDATA[ a > b ]]> c": " b ]]> c",
    "!> b": " b",
    "!-> b": " b",
    "?php a > b ?>": " b ?>",
    "/ a> b": " b",
    "/> b": " b",
    "!": "",
    "!--": "",
    "!-": "",
}


@pytest.mark.parametrize("text", COMMENTS)
def test_comments(text: str) -> None:
    assert text[skip_comment(bytes_of("<" + text), 2) - 1 :] == COMMENTS[text]


COMMENT = re.compile(r"<!--(?:>|->|.*?(?:--!?>|\Z))|<[!?/].*?(?:>|\Z)", re.DOTALL)


@settings(deadline=None)
@given(st.text("<!->x", max_size=24))
def test_any_comment_ends_where_the_expression_does(text: str) -> None:
    text = "<!" + text
    found = COMMENT.match(text)
    assert found is not None
    assert skip_comment(bytes_of(text), 2) == found.end()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a</script>", 1),
        ("</SCRIPT >", 0),
        ("</script/>", 0),
        ("</scripty></script>", 10),
        ("</script", 8),
        ("</</script\n", 2),
        ("<!-- </script> -->", 5),
        ("no end", 6),
        ("", 0),
        ("</style></script>", 8),
    ],
)
def test_raw_text(text: str, place: int) -> None:
    assert skip_raw_text(bytes_of(text), 0, name_hash("script")) == place


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"</>= \"'!-x", "script", "</script", "SCRIPT"]), max_size=30).map("".join))
def test_no_place_is_behind_the_data_or_before_the_start(text: str) -> None:
    data = bytes_of(text)
    found = re.search(r"</script(?=[\t\n\f\r />])", text, re.IGNORECASE)
    assert skip_raw_text(data, 0, name_hash("script")) == (found.start() if found else len(text))
    for at in range(len(data) + 1):
        assert at <= read_name(data, at, True)[1] <= len(data)
        start, stop, behind = read_value(data, at)
        assert at <= start <= stop <= behind <= len(data)
