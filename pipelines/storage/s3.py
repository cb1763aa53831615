"""S3, or whatever speaks its protocol, through boto3: range reads, conditional puts.

What keeps a run right is here what it is on a disk: nothing is seen before it is whole (an object appears at once),
data files lie under content-addressed names, and a commit is a put that fails where something is already
(`If-None-Match`). An output is held by a lease (lease.py).

Region, endpoint and credentials come from boto3's own chain (AWS_ENDPOINT_URL_S3, AWS_PROFILE, AWS_REGION ...). Where
it has no credentials at all, requests are not signed, as public buckets want it. AWS_MAX_ATTEMPTS is how often botocore
makes a request that is refused for the time being (10 unless set), HEADRACE_S3_TIMEOUT the seconds without a byte after
which an answer is given up (60). On top of that, requests are repeated after what botocore does not see or does not
repeat: bodies and listings that break off, stall, or are cut short. A fault of the storage or of the network never
looks like a fault of the data: it is a `HeadraceError`, and only a key that is not there is an `OSError`.

Memory: a reader holds one block of at most `LARGEST_READ` bytes, an upload one part; what is written waits in an
unlinked file of TMPDIR.
"""

from __future__ import annotations

import dataclasses
import datetime
import errno
import io
import itertools
import os
import random
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from typing import IO, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore import exceptions as failed
from botocore.config import Config
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from pipelines.errors import HeadraceError, OutputError
from pipelines.storage.lease import CLAIMS, PART, RUN, dead_claims, held
from pipelines.storage.local import explain_os_error
from pipelines.storage.storage import StoredFile

SMALLEST_READ = 64 * 1024
LARGEST_READ = 8 * 1024 * 1024
PART_BYTES, MAX_PARTS = 8 * 1024 * 1024, 10_000
"""Of a multipart upload; S3 takes at most 10,000 parts."""
DELETED_AT_ONCE = 1000
"""As many as S3 takes in one request."""

TRIES = 5
"""Rounds of botocore's tries for one request, and tries for what botocore does not repeat."""
LONGEST_PAUSE = 20.0
CONNECT_TIMEOUT = 10.0
CONNECTIONS = 16

BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")

FAILURES = (failed.BotoCoreError, failed.ClientError, ResponseParserError, HTTPError, ConnectionError, TimeoutError)
"""What a request can end with."""
BROKEN = (
    failed.HTTPClientError, failed.IncompleteReadError, failed.FlexibleChecksumError, ResponseParserError, HTTPError,
    ConnectionError, TimeoutError,
)  # fmt: skip
"""An answer that did not come, or not whole: worth another try."""
BUSY = ("ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable")
"""Codes that a batch of deletions gives for single keys, or that come with a status other than 5xx."""
NOT_ACCEPTED = ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired")
ELSEWHERE = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")

Answer = TypeVar("Answer")

_unpublished: dict[str, dict[str, IO[bytes]]] = {}
"""The files of this process's attempts, by attempt and name. Having no name on the disk, they end with the process."""


@dataclasses.dataclass(frozen=True, slots=True)
class S3Storage:
    """The objects of a bucket whose keys begin with `prefix` and "/". Picklable: each process makes its own client."""

    bucket: str
    prefix: str = ""
    anonymous: bool = False
    """Never sign, whatever credentials there are."""
    lease_seconds: float = 30
    """How long a claim lives that is not written anew; the same for all who share an output."""

    @classmethod
    def from_url(cls, url: str) -> S3Storage:
        """Return the storage at `s3://bucket/prefix`. Raises `HeadraceError` for a URL that is none."""
        scheme, _, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not BUCKET_NAME.fullmatch(bucket):
            shown = "s3://...@..." if "@" in bucket else url  # people do put keys there
            raise HeadraceError(
                f"{shown}: is no address in S3\nhint: write s3://BUCKET/PREFIX; credentials and the endpoint come from "
                "the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_S3)"
            )
        storage = cls(bucket, prefix.strip("/"))
        storage.key("")
        return storage

    @property
    def url(self) -> str:
        """Where the root is."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def _root(self) -> str:
        """What every key begins with."""
        return f"{self.prefix}/" if self.prefix else ""

    def key(self, path: str) -> str:
        """Return the key of a path. Raises `HeadraceError` for one that would lead out of a folder it is copied to."""
        key = self._root + path
        if path.startswith("/") or ".." in key.split("/"):
            raise HeadraceError(
                f"{self.url}/{path}: has an empty first part or a part '..' in its name\n"
                "hint: give it another name, or choose a folder that it does not lie in"
            )
        return key

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files below the folder `prefix`; claims and the markers of empty folders are invisible."""
        for entry in self._entries(prefix):
            path = entry["Key"].removeprefix(self._root)
            marker = path.endswith("/") and not entry["Size"]
            if not marker and not path.startswith(f"{CLAIMS}/"):
                self.key(path)
                yield StoredFile(path, entry["Size"], _nanoseconds(entry["LastModified"]))

    def open(self, path: str) -> BinaryIO:
        """Open an object for reading. Raises `HeadraceError` when it is written to before all is read."""
        return io.BufferedReader(_ObjectReader(self, path))

    def read(self, path: str) -> bytes:
        """Return the object's bytes."""
        return self.read_tagged(path)[0]

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        """Return the object's bytes and their ETag."""

        def request(client: Any) -> tuple[bytes, str]:
            answer = client.get_object(Bucket=self.bucket, Key=self.key(path))
            with closing(answer["Body"]) as body:
                return body.read(), answer["ETag"]

        return self.ask(path, request)

    def exists(self, path: str) -> bool:
        """Whether there is an object of this name."""
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def stat(self, path: str) -> StoredFile:
        """Return size and time of an object."""
        answer = self.ask(path, lambda client: client.head_object(Bucket=self.bucket, Key=self.key(path)))
        return StoredFile(path, answer["ContentLength"], _nanoseconds(answer["LastModified"]))

    @contextmanager
    def claim(self, *, shared: bool = False) -> Iterator[None]:
        """Hold a lease, which is renewed until the context ends. The claim of a holder that died lasts for a lease.

        A holder that was out of reach for so long that another took its place gets an `OutputError` at the end.
        """
        if shared:
            self._end_dead_run()
            with held(self, f"{PART}{uuid.uuid4().hex}"):
                self._end_dead_run()
                yield
            return
        with held(self, RUN, dead_claims(self, RUN).get(RUN)):
            for name in dead_claims(self, PART):
                self.delete(f"{CLAIMS}/{name}")
            self._abort_uploads()
            yield

    def new_attempt(self) -> str:
        """Return a random name."""
        return uuid.uuid4().hex

    def create(self, attempt: str, name: str) -> BinaryIO:
        """Open an unlinked temporary file; closing it keeps its bytes for `publish`."""
        files = _unpublished.setdefault(attempt, {})
        assert name not in files, f"{name} is created twice in one attempt"
        try:
            files[name] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - until it is published or discarded
            return io.BufferedWriter(_TemporaryWriter(os.dup(files[name].fileno()), "wb"))
        except OSError as error:
            raise explain_os_error(error, tempfile.gettempdir()) from error

    def publish(self, attempt: str, name: str, path: str) -> None:
        """Upload the file, in parts when it is large, and let go of it."""
        file = _unpublished[attempt][name]
        part = max(PART_BYTES, -(-os.fstat(file.fileno()).st_size // MAX_PARTS))
        # without threads: one part in memory, and none of the upload's own threads to be lost in a fork
        config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=part, use_threads=False)

        def request(client: Any) -> None:
            with open(os.dup(file.fileno()), "rb") as copy:  # noqa: PTH123 - a descriptor; boto3 closes what it uploads
                copy.seek(0)
                client.upload_fileobj(copy, self.bucket, self.key(path), Config=config)

        self.ask(path, request, OutputError)
        _unpublished[attempt].pop(name).close()

    def discard(self, attempt: str) -> None:
        """Let go of the attempt's files."""
        for file in _unpublished.pop(attempt, {}).values():
            file.close()

    def commit(self, path: str, record: bytes) -> bool:
        """Put the record on the condition that there is none.

        A put whose answer was lost is repeated, finds its own record and returns False: what stands is the same bytes.
        """
        return self.put(path, record, IfNoneMatch="*") is not None

    def replace(self, path: str, record: bytes) -> None:
        """Put the record."""
        self.put(path, record)

    def put(self, path: str, record: bytes, **condition: str) -> str | None:
        """Put an object and return its ETag; None where the condition (IfMatch, IfNoneMatch) does not hold."""

        def request(client: Any) -> str | None:
            try:
                answer = client.put_object(Bucket=self.bucket, Key=self.key(path), Body=record, **condition)
            except failed.ClientError as error:
                if _status(error) == 412 or _code(error) == "NoSuchKey":  # If-Match where nothing is
                    return None
                raise
            return answer["ETag"]

        return self.ask(path, request, OutputError)

    def delete(self, path: str) -> None:
        """Delete an object, and all whose keys begin with `path` and "/"."""
        below = (entry["Key"] for entry in self._entries(path))
        keys = itertools.chain([self.key(path)] if path else [], below)
        while batch := list(itertools.islice(keys, DELETED_AT_ONCE)):
            self._delete_keys(path, batch)

    def claims(self) -> dict[str, str]:
        """Return the ETag of every claim by its name."""
        return {entry["Key"].rpartition("/")[2]: entry["ETag"] for entry in self._entries(CLAIMS)}

    def ask(self, path: str, request: Callable[[Any], Answer], kind: type[HeadraceError] = HeadraceError) -> Answer:
        """Make a request with this process's client, again where its failure may pass; `path` is what it is about.

        Raises `FileNotFoundError` where there is no such key and otherwise an error of `kind`, which says what to do.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return request(_client(os.getpid(), self.anonymous, _environment()))
            except FAILURES as error:
                if attempt == TRIES or not _may_pass(error):
                    raise self._explained(error, path, kind) from error
            time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.2 * 2**attempt)))

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        """Yield what S3 lists below a folder, page by page."""
        prefix = self.key(f"{folder.rstrip('/')}/" if folder else "")
        token: dict[str, str] = {}
        while True:
            page = self.ask(folder, _list_request(Bucket=self.bucket, Prefix=prefix, **token))
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _delete_keys(self, path: str, keys: Iterable[str]) -> None:
        objects = [{"Key": key} for key in keys]

        def request(client: Any) -> None:
            answer = client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})
            for error in answer.get("Errors", ()):
                if error["Code"] != "NoSuchKey":
                    raise failed.ClientError({"Error": error}, "DeleteObjects")

        self.ask(path, request, OutputError)

    def _end_dead_run(self) -> None:
        """Delete the claim of a run that died; taking it over first makes sure that nobody else did."""
        for name, etag in dead_claims(self, RUN).items():
            with held(self, name, etag):
                pass

    def _abort_uploads(self) -> None:
        """Abort multipart uploads that runs which ended left behind: they are invisible, but they are paid for."""

        def request(client: Any) -> None:
            pages = client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._root):
                for upload in page.get("Uploads", ()):
                    client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

        with suppress(HeadraceError):  # not everybody may list them, and a lifecycle rule of the bucket does it too
            self.ask("", request)

    def _explained(self, error: Exception, path: str, kind: type[HeadraceError]) -> Exception:
        """Return what people see: the thing, what was found and the remedy, without what might hold a secret."""
        url = f"{self.url}/{path}".rstrip("/")
        if isinstance(error, failed.ClientError):
            code = _code(error)
            if code == "NoSuchKey" or (_status(error) == 404 and code == "404"):
                return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
            return kind(f"{url}: {self._refusal(error, code)}")
        if isinstance(error, failed.ConnectionError):
            return kind(
                f"{url}: {_endpoint()} cannot be reached ({type(error).__name__})\n"
                "hint: check the network and AWS_ENDPOINT_URL_S3"
            )
        if isinstance(error, BROKEN):
            return kind(
                f"{url}: the answer did not come or broke off, {TRIES} times ({type(error).__name__})\n"
                "hint: check the network and run again; HEADRACE_S3_TIMEOUT sets the seconds to wait for a byte"
            )
        return kind(
            f"{url}: cannot be asked for ({type(error).__name__})\n"
            "hint: check what the environment and the AWS configuration say of region, profile and credentials"
        )

    def _refusal(self, error: failed.ClientError, code: str) -> str:
        """Say why the storage refused, and what to do."""
        if code == "NoSuchBucket":
            return f"there is no bucket {self.bucket}\nhint: make it, or check its name and AWS_ENDPOINT_URL_S3"
        if code in NOT_ACCEPTED:
            remedy = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; session tokens expire"
            return f"the credentials are not accepted ({code})\nhint: {remedy}"
        if code == "RequestTimeTooSkewed":
            return "this machine's clock is wrong (RequestTimeTooSkewed)\nhint: set it"
        if code in ELSEWHERE:
            return f"the bucket is in another region ({code})\nhint: set AWS_REGION to the bucket's"
        if _status(error) == 403 and _is_unsigned(_client(os.getpid(), self.anonymous, _environment())):
            public = "; the public crawl is also at https://data.commoncrawl.org/" * (self.bucket == "commoncrawl")
            return f"is refused without credentials\nhint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret{public}"
        if _status(error) == 403:
            return f"access is denied ({code})\nhint: check that these credentials are right and may do this here"
        if _may_pass(error):
            return f"the storage is too busy or failing ({code})\nhint: run again later, or with fewer workers"
        return f"the storage refused ({code}, status {_status(error)})\nhint: check the address and the bucket's rules"


class _ObjectReader(io.RawIOBase):
    """An object as it was when it was opened, read in ranges. Opening costs one request, which brings the first block.

    Where reads follow each other, each block is twice the last, up to `LARGEST_READ`; elsewhere as much is fetched as
    is asked for, but at least `SMALLEST_READ`. So never more is read ahead than was read in sequence before.
    """

    def __init__(self, storage: S3Storage, path: str) -> None:
        """Fetch the first block. Raises `FileNotFoundError`."""
        self._storage, self._path, self._key = storage, path, storage.key(path)
        self.name = f"{storage.url}/{path}"
        self._size, self._etag, self._block = storage.ask(path, self._request_first)
        self._start = self._position = 0
        self._window = SMALLEST_READ

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, at no cost."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position of the next read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self.name}: position {base + offset} lies before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the block that holds the position, as far as it goes; 0 = the end."""
        view = memoryview(buffer).cast("B")
        if not view.nbytes or self._position >= self._size:
            return 0
        if not self._start <= self._position < self._start + len(self._block):
            self._load(view.nbytes)
        begin = self._position - self._start
        piece = memoryview(self._block)[begin : begin + view.nbytes]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _load(self, wanted: int) -> None:
        """Fetch the block that begins at the position; a buffer around us asks for two of its own more."""
        sequential = self._position == self._start + len(self._block)
        self._window = min(2 * self._window, LARGEST_READ) if sequential else SMALLEST_READ
        length = max(self._window, min(wanted + 2 * io.DEFAULT_BUFFER_SIZE, LARGEST_READ))
        self._block, self._start = b"", self._position  # never two blocks at a time
        self._block = self._fetch(self._position, min(self._position + length, self._size))

    def _fetch(self, start: int, stop: int) -> bytes | bytearray:
        """Return the bytes of a range; where an answer breaks off, the next goes on."""
        got = bytearray()

        def request(client: Any) -> None:
            begin = start + len(got)
            answer = client.get_object(
                Bucket=self._storage.bucket, Key=self._key, Range=f"bytes={begin}-{stop - 1}", IfMatch=self._etag
            )
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] != stop - begin:
                    raise _cut_short(answer["ContentLength"], stop - begin)
                for chunk in body.iter_chunks(SMALLEST_READ):
                    got.extend(chunk)

        self._ask_unchanged(request)
        return got

    def _ask_unchanged(self, request: Callable[[Any], None]) -> None:
        def checked(client: Any) -> bool:
            try:
                request(client)
            except failed.ClientError as error:
                if _status(error) == 412 or _code(error) == "NoSuchKey":
                    return False
                raise
            return True

        if not self._storage.ask(self._path, checked):
            raise HeadraceError(
                f"{self.name}: was written to or deleted while it was read\n"
                "hint: run again when nothing writes to it any more"
            )

    def _request_first(self, client: Any) -> tuple[int, str, bytes | bytearray]:
        """Return size, ETag and the first block."""
        where = {"Bucket": self._storage.bucket, "Key": self._key}
        try:
            answer = client.get_object(**where, Range=f"bytes=0-{SMALLEST_READ - 1}")
        except failed.ClientError as error:
            if _status(error) != 416:
                raise
            answer = client.head_object(**where)  # no range of nothing can be asked for
            return answer["ContentLength"], answer["ETag"], b""
        size = int(answer.get("ContentRange", f"/{answer['ContentLength']}").rpartition("/")[2])
        length = min(size, SMALLEST_READ)
        with closing(answer["Body"]) as body:
            block = body.read(length)
        if len(block) != length:
            raise _cut_short(len(block), length)
        return size, answer["ETag"], block


class _TemporaryWriter(io.FileIO):
    """A temporary file on a disk that may be full."""

    def write(self, data: Any) -> int:
        """Write. Raises `OutputError` that names TMPDIR, which the output's address says nothing of."""
        try:
            return super().write(data)
        except OSError as error:
            raise explain_os_error(error, tempfile.gettempdir()) from error


def _list_request(**arguments: Any) -> Callable[[Any], dict[str, Any]]:
    return lambda client: client.list_objects_v2(**arguments)


@lru_cache(maxsize=4)
def _client(pid: int, anonymous: bool, environment: frozenset[tuple[str, str]]) -> Any:
    """Return the client of this process (a forked child must not share its parent's connections) and environment."""
    session = boto3.session.Session()
    config = Config(
        signature_version=UNSIGNED if anonymous or session.get_credentials() is None else "s3v4",
        retries={"mode": "adaptive", "total_max_attempts": max(1, int(_setting("AWS_MAX_ATTEMPTS", 10)))},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=_setting("HEADRACE_S3_TIMEOUT", 60),
        max_pool_connections=CONNECTIONS,
    )
    try:
        return session.client("s3", config=config)
    except ValueError as error:
        raise HeadraceError(
            f"{_endpoint()}: is no endpoint\nhint: set AWS_ENDPOINT_URL_S3 to a URL, or not at all"
        ) from error


def _environment() -> frozenset[tuple[str, str]]:
    """Return what of the environment a client depends on."""
    return frozenset(item for item in os.environ.items() if item[0].startswith(("AWS_", "HEADRACE_S3_")))


def _setting(name: str, default: float) -> float:
    """Return a positive number of the environment. Raises `HeadraceError` for anything else."""
    text = os.environ.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise HeadraceError(f"{name}: is {text!r}\nhint: set it to a number above 0, or not at all")
    return value


def _endpoint() -> str:
    """Return host and port that requests go to, as far as the environment tells, without any password."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return urlsplit(url).netloc.rpartition("@")[2] or "the endpoint of S3"


def _cut_short(got: int, expected: int) -> failed.IncompleteReadError:
    return failed.IncompleteReadError(actual_bytes=got, expected_bytes=expected)


def _is_unsigned(client: Any) -> bool:
    return client.meta.config.signature_version is UNSIGNED


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed; botocore itself has tried again where nothing answered at all."""
    if isinstance(error, failed.ClientError):
        return _status(error) >= 500 or _status(error) in (409, 429) or _code(error) in (*BUSY, "SlowDown")
    return isinstance(error, BROKEN) and not isinstance(error, failed.ConnectionError)


def _code(error: failed.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: failed.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _nanoseconds(modified: datetime.datetime) -> int:
    """Return a time in ns, in whole seconds: an object's own answer tells no more, a listing may."""
    return int(modified.timestamp()) * 10**9
