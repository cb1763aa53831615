"""A web server on loopback for tests: files of a folder with ranges, tags and times, and faults on demand."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one answer: another status, extra headers, a body cut after some bytes, a reset, a stall."""

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    cut: int | None = None
    reset: bool = False
    stall_s: float = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> tuple[int, int] | None:
        """First and last byte asked for."""
        value = self.headers.get("Range")
        if value is None:
            return None
        first, _, last = value.removeprefix("bytes=").partition("-")
        return int(first), int(last)


class WebServer(ThreadingHTTPServer):
    """Serves `folder`; the switches are looked at with every request, `faults` are used up one a request."""

    daemon_threads = True

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.scheme = folder, "http"
        self.requests: list[Seen] = []
        self.faults: deque[Fault] = deque()
        self.ignores_range = self.hides_size = self.ignores_conditions = False
        self.tag: str | None = '"1"'
        self.tells_time = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    @property
    def connections(self) -> int:
        """How many clients' ports asked for something."""
        return len({seen.headers[":port"] for seen in self.requests})

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients hang up in the middle here, or do not like our certificate."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        headers = {**dict(self.headers.items()), ":port": str(self.client_address[1])}
        seen = Seen(self.command, self.path, headers)
        self.server.requests.append(seen)
        fault = self.server.faults.popleft() if self.server.faults else Fault()
        if fault.stall_s:
            time.sleep(fault.stall_s)
        if fault.reset:
            self._reset()
        elif fault.status is not None:
            self._send(fault.status, b"no", dict(fault.headers), None)
        else:
            self._send_file(seen, fault)

    def _send_file(self, seen: Seen, fault: Fault) -> None:
        file = self.server.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if not file.is_file():
            self._send(404, b"", {}, None)
            return
        data, headers = file.read_bytes(), self._version(file) | dict(fault.headers)
        if not self.server.ignores_conditions and not self._matches(seen.headers.get("If-Match")):
            self._send(412, b"", headers, None)
        elif seen.range is None or self.server.ignores_range:
            self._send(200, data, headers, fault.cut)
        elif seen.range[0] >= len(data):
            self._send(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"}, None)
        else:
            first, last = seen.range[0], min(seen.range[1], len(data) - 1)
            span = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            self._send(206, data[first : last + 1], span | headers, fault.cut)

    def _matches(self, wanted: str | None) -> bool:
        """Whether a condition holds; one with a weak tag never does (RFC 9110, 13.1.1)."""
        return wanted is None or (wanted == self.server.tag and not wanted.startswith("W/"))

    def _version(self, file: Path) -> dict[str, str]:
        tag = {"ETag": self.server.tag} if self.server.tag else {}
        when = {"Last-Modified": formatdate(file.stat().st_mtime, usegmt=True)} if self.server.tells_time else {}
        return tag | when

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server.hides_size:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or self.server.hides_size or cut is not None

    def _reset(self) -> None:
        """Hang up so that the client sees a reset and not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        self.close_connection = True


@contextmanager
def serve(folder: Path, certificate: Path | None = None) -> Iterator[WebServer]:
    """Serve a folder as long as the context lasts; over TLS with a certificate."""
    with WebServer(folder, certificate) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def make_certificate(path: Path) -> None:
    """Write key and certificate of 127.0.0.1, signed by itself: who trusts the file trusts the server."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(pem))
