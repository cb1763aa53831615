"""Files of a web server, read only: `https://host/prefix`, and plain `http://` from loopback hosts alone.

A file is read through a window that grows from 64 KiB (jumps) to 8 MiB (bytes in a row), each by one Range request. A
body that ends early is taken up where it stopped; a file that changes while it is read is an error. A server that does
not know ranges can be read from its first byte on. Retries, TLS and connections are urllib3's: one pool a process, so
that no connection is shared over a fork. Nobody logs in: an address has no user, no password and no query.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import ipaddress
import os
import random
import re
import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote, urljoin, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError

from pipelines.errors import HeadraceError
from pipelines.storage.storage import StoredFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WINDOW_BYTES, MAX_WINDOW_BYTES = 64 << 10, 8 << 20
"""Bytes of a request after a jump, and after many reads in a row."""

TRIES = 8
"""How often something is asked for before it is given up; a body that got on by a window starts a new count."""

FIRST_PAUSE_S, MAX_PAUSE_S, MAX_RETRY_AFTER_S = 0.5, 30.0, 120
"""The pause before the second try, which doubles up to the largest; and what a server may ask for at most."""

RETRIED = (429, 500, 502, 503, 504)
"""Answers after which the same request may succeed (RFC 9110, 15.6; RFC 6585, 4)."""

TLS_TRIES = 3
"""The same where TLS fails: a certificate that is not trusted stays so."""

MAX_REDIRECTS = 5
TIMEOUT = "HEADRACE_HTTPS_TIMEOUT"
_CONNECTIONS = 16
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d{1,18})-\d{1,18}|\*)/(?P<size>\d{1,18})", re.ASCII)
_SIZE = re.compile(r"(?P<size>\d{1,18})", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class HttpsStorage:
    """The files below an address of a web server. It cannot be listed: `ListedStorage` names the files."""

    url: str

    @classmethod
    def from_url(cls, url: str) -> HttpsStorage:
        """Return the storage of an address `https://host[:port][/prefix]`. Raises `HeadraceError` for any other."""
        shown = _without_secrets(url)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:  # whose message may have a part of a password
            raise HeadraceError(f"{shown}: is no URL\nhint: write https://HOST/PREFIX") from None
        if parts.username is not None or "?" in url or "#" in url:
            raise HeadraceError(
                f"{shown}: the address has a user, a query or a fragment\n"
                "hint: write https://HOST/PREFIX; what is not open to everybody can be read from S3 or a folder"
            )
        if not host or port == 0 or not re.fullmatch("[!-~]+", url):
            raise HeadraceError(f"{shown}: is no URL\nhint: write https://HOST/PREFIX in ASCII, the rest as %XX")
        _check_scheme(parts.scheme, host, shown)
        path = parts.path.rstrip("/")
        if any(part in ("", ".", "..") for part in path.split("/")[1:]):
            raise HeadraceError(f"{shown}: the path has an empty part, . or ..\nhint: write it without them")
        return cls(f"{parts.scheme}://{parts.netloc}{path}")

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Raise `HeadraceError`: the web has no listings."""
        raise HeadraceError(
            f"{self.url}: a web server cannot be asked which files it has\n"
            "hint: name them in a file, one a line, and add `files: FILE` to the source (`headrace crawl` writes one)"
        )

    def open(self, path: str) -> BinaryIO:
        """Open a file, which costs one request: its first bytes. Raises `FileNotFoundError` or `HeadraceError`."""
        return cast(BinaryIO, io.BufferedReader(_WebFile(self._url_of(path))))

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        with self.open(path) as file:
            return file.read()

    def exists(self, path: str) -> bool:
        """Whether the server has the file."""
        try:
            _request("HEAD", self._url_of(path), {}).close()
        except FileNotFoundError:
            return False
        return True

    def stat(self, path: str) -> StoredFile:
        """Return size and time as the server tells them. Raises `FileNotFoundError`; `HeadraceError` if it does not."""
        url = self._url_of(path)
        response = _request("HEAD", url, {})
        response.close()
        return StoredFile(path, _size(response, url), _modified(response))

    def _url_of(self, path: str) -> str:
        """Return a file's address; urllib3 would resolve dots, and so leave the prefix."""
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise HeadraceError(f"{path}: has an empty part, . or ..\nhint: name files relative to {self.url}")
        return f"{self.url}/{quote(path.encode('utf-8', 'surrogateescape'))}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Version:
    """What tells a file from what it was before: its size, and its tag or time where the server gives them."""

    size: int
    tag: str
    modified: str

    @classmethod
    def of(cls, response: BaseHTTPResponse, size: int) -> _Version:
        """Return the version that an answer is about."""
        return cls(size, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))

    def same(self, other: _Version) -> bool:
        """Whether both are one version, as far as both tell; a tag tells more than a time (RFC 9110, 8.8)."""
        if self.tag and other.tag:
            return (self.size, self.tag) == (other.size, other.tag)
        times = not (self.modified and other.modified) or self.modified == other.modified
        return self.size == other.size and times

    def condition(self) -> dict[str, str]:
        """Return the header that makes a server refuse another version; a weak tag never matches (RFC 9110, 13.1.1)."""
        if self.tag and not self.tag.startswith("W/"):
            return {"If-Match": self.tag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}


class _WebFile(io.RawIOBase):
    """One file, seekable: a window of its bytes is held, and the answer that is being read."""

    def __init__(self, url: str) -> None:
        """Ask for the first window, which tells size and version."""
        self._url = url
        self._body: BaseHTTPResponse | None = None
        self._body_at = self._position = self._start = 0
        self._version: _Version | None = None
        self._num_bytes = WINDOW_BYTES
        self._window = self._fetch(0, WINDOW_BYTES)

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it has a position: yes, and a seek alone asks for nothing."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also to behind the end."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self._url)
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what the window holds from the position on; if that is nothing, ask for a new window first."""
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            return 0
        if not self._start <= self._position < self._start + len(self._window):
            self._load(len(view))
        offset = self._position - self._start
        part = memoryview(self._window)[offset : offset + len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        """Let go of the connection."""
        self._drop_body()
        super().close()

    @property
    def _size(self) -> int:
        return self._version.size if self._version else 0

    def _load(self, wanted: int) -> None:
        """Put the window where the position is: twice as large in a row, small again after a jump."""
        in_a_row = self._position == self._start + len(self._window)
        self._num_bytes = min(2 * self._num_bytes, MAX_WINDOW_BYTES) if in_a_row else WINDOW_BYTES
        num_bytes = min(max(self._num_bytes, wanted), MAX_WINDOW_BYTES)
        self._window = bytearray()  # frees it before the next one is there
        self._window, self._start = self._fetch(self._position, num_bytes), self._position

    def _fetch(self, start: int, num_bytes: int) -> bytearray:
        """Return the bytes from `start` on, fewer than `num_bytes` only at the end of the file."""
        window, stop = bytearray(), start + num_bytes
        since, retries = 0, _retries()
        while start + len(window) < stop:
            try:
                stop = self._ask(start + len(window), stop)
                while start + len(window) < stop:
                    window += self._read_body(stop - start - len(window))
            except HTTPError as error:
                self._drop_body()
                if len(window) - since >= WINDOW_BYTES:
                    since, retries = len(window), _retries()
                retries = _pause(retries, error, self._url)
        return window

    def _ask(self, at: int, stop: int) -> int:
        """Have an answer open whose next byte is that at `at`; return `stop`, or the file's end if that is less."""
        if self._body is None or self._body_at != at:
            self._drop_body()
            condition = self._version.condition() if self._version else {}
            self._body = _request("GET", self._url, {"Range": f"bytes={at}-{stop - 1}", **condition})
            self._body_at = at
            self._check(self._body, at)
        return min(stop, self._size)

    def _check(self, response: BaseHTTPResponse, at: int) -> None:
        """Refuse an answer that is about another version, or that does not begin at `at`."""
        version = _Version.of(response, _size(response, self._url))
        self._version = self._version or version
        if not self._version.same(version):
            raise _changed(self._url)
        begins = {200: 0, 206: _first_byte(response), 416: version.size}[response.status]
        if begins != at:
            raise HeadraceError(
                f"{self._url}: was asked for the bytes from {at} on, and answered with those from {begins} on\n"
                "hint: a server must know Range requests to be read out of order; copy its files to a folder or to S3"
            )

    def _read_body(self, most: int) -> bytes:
        """Return the next bytes of the open answer. Raises `HTTPError` at its end."""
        piece = self._body.read(min(most, WINDOW_BYTES), decode_content=False) if self._body else b""
        if not piece:
            raise ProtocolError(f"the answer ends at byte {self._body_at}")
        self._body_at += len(piece)
        return piece

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


class _JitteredRetry(Retry):
    """urllib3's account of retries, with every pause drawn from the upper half of an exponential one."""

    def get_backoff_time(self) -> float:
        """Return the pause in seconds after as many failures as there were."""
        pause = min(FIRST_PAUSE_S * 2 ** max(len(self.history) - 1, 0), MAX_PAUSE_S)
        return random.uniform(pause / 2, pause)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Return the seconds that a server asks for, None if that is no number and no date."""
        try:
            return super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):
            return None


def _retries() -> Retry:
    return _JitteredRetry(
        total=TRIES - 1,
        other=TLS_TRIES - 1,
        allowed_methods=None,  # that is, all
        status_forcelist=RETRIED,
        raise_on_status=False,
        retry_after_max=MAX_RETRY_AFTER_S,
    )


def _pause(retries: Retry, error: Exception, url: str) -> Retry:
    """Wait after a failed body and return what is left of the retries. Raises `HeadraceError` when none are."""
    try:
        left = retries.increment("GET", error=error)
    except MaxRetryError:
        raise _given_up(url, error) from error
    left.sleep()
    return left


def _request(method: str, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
    """Return an answer 200, 206 or 416, whose body is yet to be read.

    Redirects are followed up to `MAX_REDIRECTS`, to the same scheme only. No message has their targets, which may be
    signed. Raises `FileNotFoundError` and `HeadraceError`.
    """
    target = url
    for _ in range(MAX_REDIRECTS + 1):
        response = _send(method, target, url, headers)
        location = response.get_redirect_location()
        if not location:
            _check_status(response, url)
            return response
        response.close()
        target = _redirected(url, target, location)
    raise HeadraceError(f"{url}: more than {MAX_REDIRECTS} redirects\nhint: give the address that they end at")


def _send(method: str, target: str, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
    """Send one request, again and again where that may help; `url` is what messages call it."""
    identified = {"User-Agent": "headrace", "Accept-Encoding": "identity", **headers}
    try:
        return _pool().urlopen(
            method, target, headers=identified, retries=_retries(), redirect=False, timeout=_timeout(),
            preload_content=False, decode_content=False,
        )  # fmt: skip
    except (HTTPError, ValueError, OverflowError) as error:  # the last two of headers that are none
        reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        raise _given_up(url, reason) from reason


_pools: dict[int, PoolManager] = {}
"""By process: one that is forked off must not use its parent's connections."""


def _pool() -> PoolManager:
    """Return the connections of this process; threads that come first together agree on one pool, without a lock."""
    process = os.getpid()
    if process not in _pools:
        _pools.setdefault(process, PoolManager(maxsize=_CONNECTIONS, ssl_context=ssl.create_default_context()))
    return _pools[process]


def _timeout() -> Timeout:
    text = os.environ.get(TIMEOUT, "60")
    if not re.fullmatch(r"0*[1-9]\d{0,4}", text, re.ASCII):
        raise HeadraceError(f"{TIMEOUT}: found {text!r}\nhint: a whole number of seconds from 1 to 99999, usual 60")
    return Timeout(int(text))


def _check_status(response: BaseHTTPResponse, url: str) -> None:
    """Raise what an answer other than 200, 206 and 416 means."""
    status = response.status
    if status in (200, 206, 416):
        return
    response.close()
    if status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if status == 412:
        raise _changed(url)
    answer = f"{url}: the server answered {status} {response.reason or ''}".rstrip()
    if status in RETRIED:
        raise HeadraceError(
            f"{answer} {TRIES} times\nhint: run the same command again later, with fewer workers if it is overloaded"
        )
    raise HeadraceError(f"{answer}\nhint: check the address, and that the server lets anybody read it")


def _redirected(url: str, target: str, location: str) -> str:
    """Return where a redirect leads. Raises `HeadraceError` unless it is the same scheme, without a user."""
    try:
        following = urljoin(target, location)
        parts = urlsplit(following)
        if parts.scheme != urlsplit(url).scheme or "@" in parts.netloc:
            raise ValueError(f"to {parts.scheme}://{parts.hostname}")
        _check_scheme(parts.scheme, parts.hostname or "", url)
    except ValueError as error:
        raise HeadraceError(
            f"{url}: is redirected to another scheme, or to no URL ({error})\n"
            "hint: give an address that can be read itself"
        ) from None
    return following


def _check_scheme(scheme: str, host: str, shown: str) -> None:
    """Refuse everything but https, and http within this host. Raises `HeadraceError`."""
    if scheme == "https" or (scheme == "http" and _is_loopback(host)):
        return
    raise HeadraceError(
        f"{shown}: scheme {scheme!r}: whoever is between here and {host} could change the bytes\n"
        "hint: use https://; plain http:// is for loopback hosts only"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _size(response: BaseHTTPResponse, url: str) -> int:
    """Return the whole file's size in bytes as an answer tells it. Raises `HeadraceError` if it does not."""
    if response.status == 200:
        size = _SIZE.fullmatch(response.headers.get("Content-Length", ""))
    else:
        size = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not size:
        raise HeadraceError(
            f"{url}: the server does not tell the file's size\n"
            "hint: copy the file to a server that does (Content-Length), to a folder or to S3"
        )
    return int(size["size"])


def _first_byte(response: BaseHTTPResponse) -> int:
    """Return where the bytes of an answer 206 begin, -1 if it does not tell."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(found["start"]) if found and found["start"] else -1


def _modified(response: BaseHTTPResponse) -> int:
    """Return when the file was last written, in ns; 0 if that is not told, or no date."""
    try:
        return int(parsedate_to_datetime(response.headers.get("Last-Modified", "")).timestamp()) * 10**9
    except (ValueError, OverflowError):
        return 0


def _changed(url: str) -> HeadraceError:
    return HeadraceError(f"{url}: changed while it was read\nhint: run again once nobody writes to it any more")


def _given_up(url: str, reason: Exception) -> HeadraceError:
    return HeadraceError(
        f"{url}: cannot be read ({reason})\n"
        f"hint: check address and network, then run the same command again; {TIMEOUT} is the patience in seconds"
    )


def _without_secrets(url: str) -> str:
    """Return an address as a message may show it: without user, password, query and fragment."""
    return re.sub("//.*@", "//", re.split("[?#]", url)[0])
