"""An HTTP proxy on loopback that fails a seeded fraction of the requests, in each way that S3 is known to fail.

The next fault is of the kind that was rarest so far among those that the request can meet.

slow_down  503 with S3's XML, before the request is carried out
reset      the connection is reset, in turn before and after the request was carried out (the answer is lost)
truncated  a GET's answer ends in the middle of its body, although Content-Length promised more
stall      no answer for longer than the client waits, then the end of the connection
cut        a listing ends in the middle of its XML, with a Content-Length right for what is sent

The request goes on as it came, Host included: a signature covers it, so the server must not see the proxy's own.
"""

from __future__ import annotations

import dataclasses
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KINDS = ("cut", "truncated", "reset", "stall", "slow_down")
"""Those that few requests can meet come first."""
SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""
HOP = ("connection", "keep-alive", "transfer-encoding", "expect")
"""Headers that are between two neighbours."""
PIECE = 64 * 1024


@dataclasses.dataclass
class FaultProxy:
    """Where it listens, whom it asks, how often it fails, and what it did so far."""

    upstream: str
    rate: float = 0.1
    seed: int = 0
    stall_seconds: float = 3.0
    endpoint: str = ""
    requests: Counter[str] = dataclasses.field(default_factory=Counter)
    """By method."""
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    """By kind."""
    connections: int = 0
    sent: int = 0
    """Bytes of bodies that went to clients."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def next_fault(self, method: str, path: str) -> str:
        """Count a request and return the kind of fault that it meets; "" for none."""
        with self.lock:
            self.requests[method] += 1
            if self.random.random() >= self.rate:
                return ""
            impossible = ("cut", "truncated") if method != "GET" else ("cut",) if "list-type=2" not in path else ()
            kind = min((kind for kind in KINDS if kind not in impossible), key=self.faults.__getitem__)
            self.faults[kind] += 1
            return kind if kind != "reset" else ("reset_after", "reset_before")[self.faults[kind] % 2]

    def count_sent(self, size: int) -> None:
        with self.lock:
            self.sent += size


@contextmanager
def fault_proxy(upstream: str, *, rate: float = 0.1, seed: int = 0, stall_seconds: float = 3.0) -> Iterator[FaultProxy]:
    """Run a proxy before the endpoint `upstream` as long as the context lasts. With `rate=0` it only counts."""
    proxy = FaultProxy(upstream, rate, seed, stall_seconds)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address) -> None:
        """Clients that go away are no news here."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    wbufsize = PIECE

    def setup(self) -> None:
        super().setup()
        with self.proxy.lock:
            self.proxy.connections += 1

    def do_request(self) -> None:
        assert "Transfer-Encoding" not in self.headers, "the proxy knows bodies with a length only"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.next_fault(self.command, self.path)
        if fault == "slow_down":
            self._answer_slow_down()
        elif fault == "stall":
            self.proxy.ended.wait(self.proxy.stall_seconds)
            self.close_connection = True
        elif fault == "reset_before":
            self._reset()
        else:
            self._forward(body, fault)

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()  # botocore waits a second for it
        return True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_request  # noqa: N815

    def _forward(self, body: bytes, fault: str) -> None:
        connection = HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            if fault == "reset_after":
                answer.read()
                self._reset()
            else:
                self._pass_on(answer, fault)
        finally:
            connection.close()

    def _pass_on(self, answer: HTTPResponse, fault: str) -> None:
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP]
        size = answer.length if self.command != "HEAD" else 0
        body = b""
        if size is None or fault:  # chunked, or to be damaged: small enough to be held
            body = answer.read()
            size = len(body)
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(size // 2 if fault == "cut" else size)))
        self.send_response_only(answer.status, answer.reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        left = size // 2 if fault else size
        self.proxy.count_sent(left)
        while left and (piece := body[:left] or answer.read(min(left, PIECE))):
            self.wfile.write(piece)
            left -= len(piece)
        self.wfile.flush()
        self.close_connection = self.close_connection or fault == "truncated"

    def _answer_slow_down(self) -> None:
        self.send_response_only(503, "Slow Down")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(SLOW_DOWN)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(SLOW_DOWN)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format, *args) -> None:
        pass
