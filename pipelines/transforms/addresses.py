"""Web addresses in one form, and lists of domains and addresses that pages are held against.

The form: no scheme, user, port, fragment, "www.", nor dots at the host's end, nor slashes at the address's; the host in
lower case and, beyond ASCII, as IDNA 2008 with the mappings of UTS #46 writes it (`xn--`); a backslash before the query
is a slash, as in browsers, and a lone slash between host and query goes. In path and query, percent signs before
letters, digits and "-._~" are decoded and all others have upper-case digits (RFC 3986, 6.2.2: these are the same
address); the case of letters can mean something and stays.

An entry of a list without a path is a domain: it stands for itself and all hosts below it. An entry with a path stands
for itself and for every address that goes on behind it with "/", "?" or "&". A public suffix ("com", "co.uk", of the
ICANN section of the list that tldextract 5.4.0 brings, nothing is downloaded) stands for itself alone: no list means to
block half of the web. "*." and dots before an entry are left out.
"""

from __future__ import annotations

import dataclasses
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.parse import unquote

import idna
import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.hashed_list import HashedList, ListArrays, find_hashed, find_span
from pipelines.transforms.hashing import HASH_START, hash_on
from pipelines.transforms.lists import list_entries
from pipelines.transforms.phrases import lowered, matches
from pipelines.transforms.words import byte_at, text_view

MAX_HOST = 253
"""Bytes of a host's end that are looked at (RFC 1035: no host is longer)."""
MAX_WRITTEN_HOST = 12 * MAX_HOST
"""Characters of a host before percent signs are decoded: four bytes for each, three characters for each byte."""

_WWW = np.frombuffer(b"www.", np.uint8)


class Addresses(NamedTuple):
    """Addresses in their form."""

    offsets: np.ndarray
    """int64, shape (rows + 1,)."""
    data: np.ndarray
    host_stops: np.ndarray
    """Where the host ends in `data`: int64, shape (rows,)."""

    def column(self) -> pa.LargeStringArray:
        """Return the addresses as strings."""
        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        return pa.Array.from_buffers(pa.large_string(), len(self.host_stops), buffers)


def normalised_addresses(urls: pa.Array) -> Addresses:
    """Return the form of every URL of a string column; a null gives an empty one."""
    offsets, data = text_view(urls.cast(pa.large_string()))
    odd = _odd_hosts(offsets, data)
    if len(odd):  # beyond ASCII, or with percent signs: few
        written = urls.cast(pa.large_string()).to_pylist()
        for row, start, stop in odd.tolist():
            before, after = data[offsets[row] : start].tobytes(), data[stop : offsets[row + 1]].tobytes()
            host = ascii_host(data[start:stop].tobytes().decode("utf-8", "replace"))
            written[row] = before.decode("utf-8", "replace") + host + after.decode("utf-8", "replace")
        offsets, data = text_view(pa.array(written, pa.large_string()))
    result = Addresses(np.zeros(len(offsets), np.int64), np.empty(len(data), np.uint8), np.zeros(len(urls), np.int64))
    size = _normalise(offsets, data, result.offsets, result.data, result.host_stops)
    return result._replace(data=result.data[:size])


def ascii_host(host: str) -> str:
    """Return a host in ASCII, percent signs decoded; one that IDNA does not allow stays as it is, in lower case."""
    return _ascii_host(host) if len(host) <= MAX_WRITTEN_HOST else host.lower()  # no cache of megabytes


@lru_cache(maxsize=4096)
def _ascii_host(host: str) -> str:
    host = unquote(host)
    if len(host) > MAX_HOST:
        return host.lower()
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return host.lower()


class Matches(NamedTuple):
    """The entry that each row's address is under: places in the list, -1 = none; int64, shape (rows,) each."""

    domains: np.ndarray
    urls: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class AddressList:
    """Domains and addresses."""

    domains: HashedList
    is_suffix: np.ndarray
    """Which domains stand for themselves alone: bool."""
    urls: HashedList

    def find(self, addresses: Addresses) -> Matches:
        """Return the innermost domain and the shortest address that each address is under."""
        found = Matches(*np.full((2, len(addresses.host_stops)), -1, np.int64))
        if len(self.domains):
            _find_domains(*addresses, self.domains.arrays, self.is_suffix, found.domains)
        if len(self.urls):
            _find_urls(*addresses, self.urls.arrays, found.urls)
        return found

    def entry(self, found: Matches, row: int) -> str | None:
        """Return the entry that a row is under, a domain before an address."""
        if found.domains[row] >= 0:
            return self.domains[int(found.domains[row])]
        return self.urls[int(found.urls[row])] if found.urls[row] >= 0 else None


@lru_cache(maxsize=16)
def address_list(files: tuple[GivenFile, ...]) -> AddressList:
    """Read lists of domains and addresses, once a process. Raises `RecipeError` (see `lists.py`)."""
    entries = [pc.replace_substring_regex(list_entries(file), r"^(\*?\.)+", "") for file in files]
    addresses = normalised_addresses(pa.concat_arrays([pa.array([], pa.large_string()), *entries]))
    column = addresses.column()
    is_domain = addresses.host_stops == addresses.offsets[1:]
    has_host = addresses.host_stops > addresses.offsets[:-1]
    domains = HashedList.of(column.filter(pa.array(is_domain & has_host)))
    urls = HashedList.of(column.filter(pa.array(~is_domain & has_host)))
    return AddressList(domains, _are_suffixes(domains.entries), urls)


def _are_suffixes(domains: pa.Array) -> np.ndarray:
    """Return which domains are public suffixes: bool, shape (domains,)."""
    plain, wild, excepted = _suffixes()
    above = pc.replace_substring_regex(domains, r"^[^.]*\.?", "")
    under_wild = pc.and_(pc.is_in(above, value_set=wild), pc.invert(pc.is_in(domains, value_set=excepted)))
    return np.asarray(pc.or_(pc.is_in(domains, value_set=plain), under_wild).to_numpy(zero_copy_only=False), bool)


@cache
def _suffixes() -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return suffixes, those whose every child is one ("*."), and the exceptions to that ("!"): large_string."""
    from tldextract import TLDExtract

    rules = TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True).tlds
    kinds: dict[str, list[str]] = {"": [], "*": [], "!": []}
    for rule in rules:
        kind = rule[0] if rule[0] in "*!" else ""
        kinds[kind].append(ascii_host(rule.removeprefix("*.").removeprefix("!")))
    plain, wild, excepted = (pa.array(kinds[kind], pa.large_string()) for kind in ("", "*", "!"))
    return plain, wild, excepted


@numba.njit(nogil=True, cache=True, inline="always")
def _ends_host(byte: int) -> bool:
    """Whether a byte ends the authority: a slash, question mark, number sign or backslash."""
    return byte == 0x2F or byte == 0x3F or byte == 0x23 or byte == 0x5C


@numba.njit(nogil=True, cache=True, inline="always")
def _is_slash(byte: int) -> bool:
    """Whether a byte is a slash or a backslash, which browsers take for one."""
    return byte == 0x2F or byte == 0x5C


@numba.njit(nogil=True, cache=True, inline="always")
def _digit(byte: int) -> int:
    """Return the value of a hexadecimal digit, or -1."""
    letter = lowered(byte)
    return byte - 0x30 if 0x30 <= byte <= 0x39 else letter - 0x57 if 0x61 <= letter <= 0x66 else -1


@numba.njit(nogil=True, cache=True, inline="always")
def _is_unreserved(byte: int) -> bool:
    """Whether a byte means the same with and without a percent sign: letters, digits and -._~ (RFC 3986, 2.3)."""
    is_sign = byte == 0x2D or byte == 0x2E or byte == 0x5F or byte == 0x7E
    return 0x30 <= byte <= 0x39 or 0x61 <= lowered(byte) <= 0x7A or is_sign


@numba.njit(nogil=True, cache=True)
def _host_span(data: np.ndarray, begin: int, end: int) -> tuple[int, int, int]:
    """Return where the host of the URL `data[begin:end]` starts and stops, and where its authority does."""
    at = begin
    while at < end and (0x61 <= lowered(byte_at(data, at)) <= 0x7A or 0x2B <= data[at] <= 0x39) and data[at] != 0x2F:
        at += 1  # letters, digits and + - . of a scheme
    if at > begin and at + 2 < end and data[at] == 0x3A and _is_slash(data[at + 1]) and _is_slash(data[at + 2]):
        begin = at + 3
    elif begin + 1 < end and _is_slash(data[begin]) and _is_slash(data[begin + 1]):
        begin += 2
    after = begin
    start = begin
    while after < end and not _ends_host(data[after]):
        if data[after] == 0x40:  # what stands before the last @ is the user
            start = after + 1
        after += 1
    stop = after
    while stop > start and 0x30 <= data[stop - 1] <= 0x39:
        stop -= 1
    stop = stop - 1 if stop > start and data[stop - 1] == 0x3A else after
    while stop > start and data[stop - 1] == 0x2E:
        stop -= 1
    return start, stop, after


@numba.njit(nogil=True, cache=True)
def _trimmed(data: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """Return the span without the controls and spaces at its ends."""
    while begin < end and data[begin] <= 0x20:
        begin += 1
    while begin < end and data[end - 1] <= 0x20:
        end -= 1
    return begin, end


@numba.njit(nogil=True, cache=True)
def _odd_hosts(offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Return row, start and stop of the hosts that are not plain ASCII: int64, shape (hosts, 3)."""
    odd = []
    for row in range(len(offsets) - 1):
        begin, end = _trimmed(data, offsets[row], offsets[row + 1])
        start, stop, _ = _host_span(data, begin, end)
        for at in range(start, stop):
            if data[at] >= 0x80 or data[at] == 0x25:
                odd.append((row, start, stop))
                break
    spans = np.empty((len(odd), 3), np.int64)
    for k in range(len(odd)):
        spans[k, 0], spans[k, 1], spans[k, 2] = odd[k]
    return spans


@numba.njit(nogil=True, cache=True)
def _normalise(
    offsets: np.ndarray, data: np.ndarray, made_offsets: np.ndarray, made: np.ndarray, host_stops: np.ndarray
) -> int:
    """Write the addresses, which are never longer than the URLs, and return how many bytes they have."""
    size = 0
    for row in range(len(offsets) - 1):
        begin, end = _trimmed(data, offsets[row], offsets[row + 1])
        start, stop, after = _host_span(data, begin, end)
        if stop - start > 4 and matches(data, start, _WWW, 0, 4) and np.any(data[start + 4 : stop] == 0x2E):
            start += 4  # not of "www.com"
        for at in range(start, stop):
            made[size] = lowered(byte_at(data, at))
            size += 1
        host_stops[row] = size
        in_path = True
        if after + 1 < end and _is_slash(data[after]) and data[after + 1] == 0x3F:
            after += 1
        while after < end and data[after] != 0x23:  # up to the fragment
            byte = byte_at(data, after)
            in_path = in_path and byte != 0x3F
            high = _digit(byte_at(data, after + 1)) if byte == 0x25 and after + 2 < end else -1
            low = _digit(byte_at(data, after + 2)) if high >= 0 else -1
            if low >= 0:
                byte = 16 * high + low
                after += 2
            if low >= 0 and not _is_unreserved(byte):
                made[size] = 0x25
                for digit in (high, low):
                    size += 1
                    made[size] = digit + (0x30 if digit < 10 else 0x37)
            else:
                made[size] = 0x2F if in_path and byte == 0x5C and low < 0 else byte
            size += 1
            after += 1
        while size > host_stops[row] and made[size - 1] == 0x2F:
            size -= 1
        made_offsets[row + 1] = size
    return size


@numba.njit(nogil=True, cache=True)
def _find_domains(
    offsets: np.ndarray, data: np.ndarray, host_stops: np.ndarray, domains: ListArrays, is_suffix: np.ndarray,
    found: np.ndarray,
) -> None:  # fmt: skip
    for row in range(len(host_stops)):
        begin, stop = offsets[row], host_stops[row]
        for start in range(max(begin, stop - MAX_HOST), stop):
            if start == begin or data[start - 1] == 0x2E:
                place = find_span(data, start, stop, domains)
                if place >= 0 and (start == begin or not is_suffix[place]):
                    found[row] = place
                    break


@numba.njit(nogil=True, cache=True)
def _find_urls(
    offsets: np.ndarray, data: np.ndarray, host_stops: np.ndarray, urls: ListArrays, found: np.ndarray
) -> None:
    for row in range(len(host_stops)):
        begin, host_stop, end = offsets[row], host_stops[row], offsets[row + 1]
        hashed = HASH_START
        for at in range(begin, end + 1):
            if at > host_stop and (at == end or data[at] == 0x2F or data[at] == 0x3F or data[at] == 0x26):
                place = find_hashed(data, begin, at, hashed, urls)
                if place >= 0:
                    found[row] = place
                    break
            if at < end:
                hashed = hash_on(hashed, data[at])
