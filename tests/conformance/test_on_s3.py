"""Input and output on S3, on a real server, with and without faults in between: the same bytes as in a folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from engine_runs import ENGINES, counts, start
from fault_proxy import fault_proxy
from runs import SHARED, run_recipe
from s3_server import S3Server, session_server
from trees import OUTSIDE_THE_LAW, tree_hashes

from pipelines.engines.datatrove import DatatroveEngine
from pipelines.finished import open_run
from pipelines.sources.source import select_files
from pipelines.storage.local import LocalStorage
from pipelines.storage.s3 import S3Storage
from pipelines.verify import verify_output

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")


@pytest.fixture(scope="session")
def server() -> S3Server:
    return session_server()


def uploaded(recipe: Path, folder: Path, storage: S3Storage) -> Path:
    """Copy a recipe's inputs (but installed Python) to S3; returns the recipe that reads them there."""
    data = yaml.safe_load(recipe.read_text())
    for name, source in data["sources"].items():
        if not source["root"].startswith("sysconfig:"):
            root = LocalStorage(Path(source["root"]))
            for file in select_files(root.list(), tuple(source["include"]), ()):
                storage.replace(f"input/{name}/{file.path}", root.read(file.path))
            source["root"] = f"{storage.url}/input/{name}"
    path = folder / recipe.name
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def s3_hashes(storage: S3Storage) -> dict[str, str]:
    """What `tree_hashes` returns, of an output on S3."""
    return {
        file.path: hashlib.sha256(storage.read(file.path)).hexdigest()
        for file in storage.list()
        if file.path not in OUTSIDE_THE_LAW
    }


@pytest.fixture
def place(server, tmp_path, monkeypatch) -> S3Storage:
    """A prefix of the bucket for one test, with the server's environment."""
    server.enter(monkeypatch)
    return S3Storage(server.bucket, f"conformance/{tmp_path.name}")


ON_S3 = {"datatrove": ("datatrove",)} | ENGINES


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=() if name == "datatrove" else pytest.mark.stress) for name in ON_S3]
)
def test_same_bytes_on_s3(engine, recipe, reference, place, tmp_path):
    expected, result = reference
    on_s3 = uploaded(recipe, tmp_path, place)
    output = S3Storage(place.bucket, f"{place.prefix}/out")
    first = counts(start(on_s3, output.url, *ON_S3[engine]))
    assert first == {"done": result.num_done, "found": 0}
    assert s3_hashes(output) == tree_hashes(expected)
    again = counts(start(on_s3, output.url, *ON_S3[engine]))
    assert again == {"done": 0, "found": result.num_done}


def test_a_run_on_s3_is_verified_and_names_no_bucket_in_its_data(reference, recipe, place, tmp_path):
    on_s3 = uploaded(recipe, tmp_path, place)
    output = S3Storage(place.bucket, f"{place.prefix}/out")
    with DatatroveEngine(1) as engine:
        run_recipe(on_s3, output, engine=engine)
    lines = list(verify_output(output.url))
    assert any(line.startswith("ledger:") for line in lines)
    assert place.bucket not in output.read("recipe.json").decode()
    assert json.loads(output.read("run.json"))["runs"][0]["roots"]["web"] == f"{place.url}/input/web"
    assert open_run(output.url).plan.resolved_json() == (reference[0] / "recipe.json").read_bytes()


def test_from_s3_to_a_folder_through_faults(recipe, reference, place, server, tmp_path, monkeypatch):
    """One request in ten is answered with SlowDown, a reset, a cut body or nothing."""
    on_s3 = uploaded(recipe, tmp_path, place)
    with fault_proxy(server.endpoint, stall_seconds=2) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        monkeypatch.setenv("HEADRACE_S3_TIMEOUT", "1")
        counts(start(on_s3, tmp_path / "out", "datatrove"))
        assert sum(proxy.faults.values()) > 3, proxy.faults
    assert tree_hashes(tmp_path / "out") == tree_hashes(reference[0])


@pytest.mark.stress
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_on_s3_through_faults(seed, recipe, reference, place, server, tmp_path, monkeypatch):
    on_s3 = uploaded(recipe, tmp_path, place)
    output = S3Storage(place.bucket, f"{place.prefix}/out")
    with fault_proxy(server.endpoint, stall_seconds=2, seed=seed) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        monkeypatch.setenv("HEADRACE_S3_TIMEOUT", "1")
        counts(start(on_s3, output.url, "datatrove"))
        assert len(proxy.faults) >= 4, proxy.faults
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    assert s3_hashes(output) == tree_hashes(reference[0])
