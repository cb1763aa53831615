"""Record headers: WARC and ARC, usual, odd and hostile."""

from __future__ import annotations

import pytest

from pipelines.sources.record_header import MAX_HEADER, find_record, parse_header


@pytest.mark.parametrize(
    ("line", "uri", "date", "media", "length"),
    [
        (b"http://a/ 1.2.3.4 20080430204825 text/html 12\n", "http://a/", "20080430204825", "text/html", 12),
        (
            b"http://a/b c d 1.2.3.4 20080430204825 text/html 12\r\n",
            "http://a/b c d",
            "20080430204825",
            "text/html",
            12,
        ),
        (
            b"http://a/ 1.2.3.4 20080430204825 text/html 200 sum - 55 f.arc 12\n",
            "http://a/",
            "20080430204825",
            "text/html",
            12,
        ),
        (b"http://a/ ::1 20080430204825 text/html; charset=x -1\n", "http://a/", "20080430204825", "text/html;", None),
    ],
)
def test_arc_lines(line: bytes, uri: str, date: str, media: str, length: int | None) -> None:
    header = parse_header(line + b"body")
    assert header is not None
    assert header.fields == {"warc-target-uri": uri, "warc-date": date, "content-type": media}
    assert (header.type, header.size, header.block_length) == ("response", len(line), length)


def test_first_of_repeated_fields_counts_and_headers_are_bounded() -> None:
    header = parse_header(b"WARC/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n")
    assert header is not None
    assert (header.block_length, header.damage) == (1, None)
    long = parse_header(b"WARC/1.0\r\n" + b"a" * (MAX_HEADER - 10))
    assert long is not None
    assert long.damage == "header_too_long"


def test_find_record_wants_a_field_and_a_line_of_its_own() -> None:
    assert find_record(b"text WARC/1.0\r\nno field here\r\n", 0) is None
    assert find_record(b"text WARC/1.0\r\nWARC-Type: x\r\n", 0) == 5
    assert find_record(b"x http://a/ 1.2.3.4 20080430204825 text/html 1\n", 0) is None
    assert find_record(b"x\nhttp://a/ 1.2.3.4 20080430204825 text/html 1\n", 0) == 2
    assert find_record(b"http://a/ 1.2.3.4 20080430204825 text/html 1\n", 3) is None
