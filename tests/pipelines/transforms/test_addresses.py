"""Web addresses in one form, and lists of them, by hand and against plain Python."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transforms import addresses
from pipelines.transforms.addresses import address_list, normalised_addresses
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.hashed_list import HashedList, find_span
from pipelines.transforms.hashing import HASH_START
from pipelines.transforms.words import text_view


def form(*urls: str | None) -> list[str]:
    return normalised_addresses(pa.array(urls, pa.string())).column().to_pylist()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTPS://user:p%40w@WWW.Example.COM.:8080/A/b?c=D#e", "example.com/A/b?c=D"),
        ("//example.com/", "example.com"),
        ("example.com/x//", "example.com/x"),
        (" http://example.com\r\n", "example.com"),
        ("http://example.com?u=http://other.example/", "example.com?u=http://other.example"),
        ("example.com/?u=http://a@b.example", "example.com?u=http://a@b.example"),  # the same address without the slash
        ("example.com//?u", "example.com//?u"),
        ("example.com/a/?u", "example.com/a/?u"),
        ("http:\\\\example.com\\a?b\\c", "example.com/a?b\\c"),
        ("http://a@b@example.com", "example.com"),
        ("http://example.com:/x", "example.com/x"),
        ("http://www.com/", "www.com"),  # not "com"
        ("http://wwww.example.com", "wwww.example.com"),
        ("http://straße.de/ß", "xn--strae-oqa.de/ß"),  # IDNA 2008: ß stays; the path is left alone
        ("http://XN--strae-oqa.de/", "xn--strae-oqa.de"),
        ("http://ПРИМЕР.рф", "xn--e1afmkfd.xn--p1ai"),
        ("http://ex%61mple.com/%61", "example.com/a"),
        ("example.com/%7Eme/%2d%5f?q=%2E", "example.com/~me/-_?q=."),  # the unreserved signs
        ("example.com/%2f%3F%23%26%5c%c3%9f", "example.com/%2F%3F%23%26%5C%C3%9F"),  # what would divide, or is no ASCII
        ("example.com/%2541%", "example.com/%2541%"),  # decoded once: "%41" is another address
        ("example.com/%4%g1%1g%%4", "example.com/%4%g1%1g%%4"),  # no escapes
        ("http://日本。jp/", "xn--wgv71a.jp"),  # an ideographic full stop divides labels
        ("http://a\u200d\u0301.example/", "a\u200d\u0301.example"),  # not allowed: stays
        ("http://[::1]:80/x", "[::1]/x"),
        ("ftp+x-1.0://example.com", "example.com"),
        ("", ""),
        (None, ""),
        ("http://", ""),
        ("#", ""),
    ],
)
def test_the_form(url, expected):
    assert form(url) == [expected]
    assert form(expected) == [expected]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.sampled_from("ahtp:/w.@?#\\%41 ßA\0\u3002[]"), max_size=20), max_size=4))
def test_any_urls(urls):
    """Nothing fails, rows do not mix, and a form is its own form."""
    together = form(*urls)
    assert together == [form(url)[0] for url in urls]


def list_of(tmp_path, text: str):
    (tmp_path / "list").write_text(text)
    return address_list((GivenFile.of(tmp_path / "list"),))


def under(listed, *urls: str) -> list[str | None]:
    found = listed.find(normalised_addresses(pa.array(urls, pa.string())))
    return [listed.entry(found, row) for row in range(len(urls))]


def test_domains_stand_for_what_is_below_them(tmp_path):
    listed = list_of(tmp_path, "https://Bad.example/ # why\n*.deep.bad.example\n.dot.example\nstraße.de\nbad.example\n")
    assert len(listed.domains) == 4
    urls = ["http://bad.example", "http://x.y.bad.example:1/z", "http://notbad.example", "http://bad.example.com/"]
    urls += [
        "http://a.deep.bad.example/",
        "http://dot.example",
        "http://a.xn--strae-oqa.de",
        "http://a/?bad.example",
        "",
    ]
    expected = [
        "bad.example",
        "bad.example",
        None,
        None,
        "deep.bad.example",
        "dot.example",
        "xn--strae-oqa.de",
        None,
        None,
    ]
    assert under(listed, *urls) == expected


def test_public_suffixes_stand_for_themselves(tmp_path):
    """com and co.uk are suffixes; *.ck is a rule whose exception is www.ck; example.co.uk is a domain."""
    listed = list_of(tmp_path, "com\nco.uk\nfoo.ck\nwww.ck\nexample.co.uk\nxn--p1ai\n")
    urls = ["http://a.com", "http://com", "http://a.co.uk", "http://co.uk/x", "http://a.foo.ck", "http://foo.ck"]
    urls += ["http://a.example.co.uk", "http://пример.рф"]
    assert under(listed, *urls) == [None, "com", None, "co.uk", None, "foo.ck", "example.co.uk", None]
    assert under(listed, "http://b.www.ck") == ["www.ck"]  # the exception is a domain


def test_addresses_stand_for_what_goes_on_behind_them(tmp_path):
    listed = list_of(tmp_path, "http://a.example/dir/\na.example/q?id=1\na.example/dir/sub\n")
    hits = ["https://www.a.example/dir#x", "http://a.example/dir/x", "http://a.example/dir/", "http://a.example/dir?x"]
    hits += ["http://a.example/dir/sub"]
    assert under(listed, *hits) == ["a.example/dir"] * 5
    misses = ["http://a.example/directory", "http://a.example/", "http://b.a.example/dir", "http://a.example/DIR"]
    assert under(listed, *misses) == [None] * 4
    assert under(listed, "http://a.example/q?id=1&x=2", "http://a.example/q?id=12") == ["a.example/q?id=1", None]
    assert under(listed, "http://a.example/%64ir/x", "http://a.example/dir%2Fx") == ["a.example/dir", None]


def test_an_empty_list(tmp_path):
    assert under(list_of(tmp_path, "# nothing\nhttp://\n/path\n"), "http://a.example/path", "") == [None, None]


HOSTS = st.lists(st.sampled_from(["a", "b", "c", "com", "uk", "co"]), min_size=1, max_size=4).map(".".join)


@settings(max_examples=60, deadline=None)
@given(st.sets(HOSTS, max_size=6), st.lists(HOSTS, min_size=1, max_size=6))
def test_against_plain_python(tmp_path_factory, entries, hosts):
    listed = list_of(tmp_path_factory.mktemp("lists"), "\n".join(sorted(entries)))
    suffixes = {"com", "uk", "co", "co.uk"}

    def expected(host: str) -> str | None:
        if host in entries:
            return host
        labels = host.split(".")
        above = (".".join(labels[k:]) for k in range(1, len(labels)))
        return next((one for one in above if one in entries - suffixes), None)

    assert under(listed, *(f"http://{host}/" for host in hosts)) == [expected(host) for host in hosts]


def test_a_collision_is_no_hit():
    """Entries under one hash, and a span of that hash that is none of them: the bytes decide."""
    lists = HashedList.of(pa.array(["one", "two", "one"], pa.large_string()))
    assert len(lists) == 2
    starts, hashes, offsets, data = lists.arrays
    same = np.full_like(hashes, hashes[0])
    top = int(np.uint64(hashes[0].astype(np.uint64)) >> np.uint64(48))
    starts = np.where(np.arange(len(starts)) <= top, 0, 2)
    first = lists[0].encode()
    both = [lists[0], lists[1]]
    spans = np.frombuffer(first, np.uint8)
    assert find_span(spans, 0, 3, (starts, same, offsets, data)) == both.index(first.decode())
    assert HASH_START != 0
    assert find_span(np.frombuffer(b"six", np.uint8), 0, 3, lists.arrays) == -1


def test_many_entries_are_all_found_and_no_others():
    entries = pa.array([f"host{k}.example" for k in range(50_000)], pa.large_string())
    lists = HashedList.of(entries)
    assert sorted(lists.entries.to_pylist()) == sorted(entries.to_pylist())
    offsets, data = text_view(entries)
    places = [find_span(data, offsets[k], offsets[k + 1], lists.arrays) for k in range(0, 50_000, 97)]
    assert [lists[place] for place in places] == [f"host{k}.example" for k in range(0, 50_000, 97)]
    assert all(find_span(data, offsets[k], offsets[k + 1] - 1, lists.arrays) < 0 for k in range(0, 50_000, 97))


def test_hosts_that_are_none_are_not_kept():
    """A worker sees millions of pages: what it remembers of a host of any length must not grow with it."""
    before = addresses._ascii_host.cache_info().misses
    assert form("http://" + "ß" * 5_000 + "/x") == ["ß" * 5_000 + "/x"]
    assert form("http://" + "%41" * 5_000) == ["%41" * 5_000]
    assert addresses._ascii_host.cache_info().misses == before
    # the longest that can be written: 253 characters of four bytes, 12 characters each
    longest = "%F0%9F%98%80" * 253
    assert len(longest) == addresses.MAX_WRITTEN_HOST
    form(f"http://{longest}/")
    assert addresses._ascii_host.cache_info().misses == before + 1


@pytest.mark.parametrize("piece", ["a.", "/", "%41", "ß", "@", ":1", "http://", "a/b?", "www.", "\\", "#"])
def test_hostile_urls_take_linear_time(piece, tmp_path):
    listed = list_of(tmp_path, "bad.example\na.example/x\n")
    under(listed, piece)
    start = time.process_time()
    under(listed, piece * (10_000_000 // len(piece.encode())), "http://" + piece * 100_000)
    assert time.process_time() - start < 3
