from __future__ import annotations

import pytest

from pipelines.errors import OutputError
from pipelines.storage.https import HttpsStorage
from pipelines.storage.local import LocalStorage
from pipelines.storage.s3 import S3Storage
from pipelines.storage.schemes import open_output, open_storage


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("s3://bucket/p", S3Storage),
        ("https://h/p", HttpsStorage),
        ("/a", LocalStorage),
        ("a:b/c", LocalStorage),
        ("a", LocalStorage),
    ],
)
def test_addresses(address, kind):
    assert isinstance(open_storage(address), kind)


@pytest.mark.parametrize("address", ["s3a://b/p", "gs://b/p", "hdfs://h/p", "file:///a", "S3://b/p", "s3:/b/p"])
def test_an_unknown_scheme_is_no_folder(address):
    with pytest.raises(OutputError, match="is no address that is known\nhint: write a path, s3://"):
        open_output(address)


def test_a_web_server_is_no_output():
    with pytest.raises(OutputError, match="cannot be written to\nhint: give a folder or s3://"):
        open_output("https://host/out")
