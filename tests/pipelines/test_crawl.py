from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from web_server import Fault, serve

from pipelines import crawl as crawl_module
from pipelines.crawl import crawl, list_dump, pick
from pipelines.errors import HeadraceError
from pipelines.recipe import load_recipe
from pipelines.storage import https, listed
from pipelines.storage.listed import read_listing
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import StoredFile

DUMP = "CC-MAIN-2024-22"
SEGMENTS = f"crawl-data/{DUMP}/segments"


def _path(number: int, kind: str = "warc") -> str:
    """Return a file's name as the dumps have them."""
    name = f"CC-MAIN-20240517233122-20240518023122-{number:05}.{'warc.' + kind if kind != 'warc' else 'warc'}.gz"
    return f"{SEGMENTS}/1715971057{number % 3}16.39/{kind}/{name}"


def _write_paths(root: Path, kind: str, data: bytes) -> None:
    file = root / f"crawl-data/{DUMP}/{kind}.paths.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A copy of a dump of 20 files of each kind; file number n has 100 + n bytes."""
    root = tmp_path / "mirror"
    for kind in ("warc", "wet", "wat"):
        for number in range(20):
            file = root / _path(number, kind)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * (100 + number))
        _write_paths(root, kind, gzip.compress("".join(f"{_path(number, kind)}\n" for number in range(20)).encode()))
    return root


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def call(*args: str) -> Result:
        result = CliRunner().invoke(crawl, [DUMP, "--output", str(tmp_path / "list"), *args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return call


def test_a_list_is_written_with_its_head_and_sizes(mirror, run, tmp_path):
    result = run("--root", str(mirror), "--files", "2")
    assert result.exit_code == 0, result.output
    # the least two of 20 hashes, worked out here
    first = sorted(sorted(range(20), key=lambda n: xxhash.xxh3_64_intdigest(_path(n).encode()))[:2])
    expected = f"# {DUMP} warc: 2 of 20 files, the first by xxh3_64 of their paths\n"
    for path, size in sorted((_path(number), 100 + number) for number in first):
        expected += f"{path}\t{size}\n"
    assert (tmp_path / "list").read_text() == expected
    assert f"list: 2 files, {sum(100 + number for number in first)} bytes" in result.output
    assert [path.name for path in tmp_path.iterdir() if path.name != "mirror"] == ["list"], "nothing else is left"


def test_picks_are_the_same_for_ever():
    """Golden: the order of xxh3_64 with seed 0; a list made today is part of one made in a year."""
    order = [15, 11, 7, 5, 0, 18, 16, 13, 6, 14, 17, 10, 1, 12, 9, 3, 2, 19, 8, 4]
    for files in range(1, 21):
        assert set(pick([_path(number) for number in range(20)], files, DUMP)) == {_path(n) for n in order[:files]}


@pytest.mark.parametrize("kind", ["warc", "wet", "wat"])
def test_without_a_number_all_files_are_listed(mirror, run, tmp_path, kind):
    assert run("--root", str(mirror), "--kind", kind).exit_code == 0
    assert [file.path for file in read_listing(tmp_path / "list")] == sorted(_path(n, kind) for n in range(20))
    assert (tmp_path / "list").read_text().startswith(f"# {DUMP} {kind}: 20 of 20 files")


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=30), st.randoms())
def test_lists_are_nested_and_do_not_depend_on_the_order(paths, rng):
    given_paths = list(paths)
    rng.shuffle(given_paths)
    picks = [pick(given_paths, files, DUMP) for files in range(1, len(paths) + 1)]
    for number, (less, more) in enumerate(zip(picks, picks[1:], strict=False), 1):
        assert len(less) == number
        assert set(less) < set(more)
    assert picks[-1] == sorted(paths) == pick(given_paths, None, DUMP)
    assert all(picked == sorted(picked) for picked in picks)


def test_a_small_list_is_a_fair_sample():
    """Of 30,000 files in 100 segments, 3,000: every segment gives its share."""
    paths = [f"crawl-data/{DUMP}/segments/{number % 100:03}/warc/{number:05}.warc.gz" for number in range(30_000)]
    picked = pick(paths, 3000, DUMP)
    counts = [sum(1 for path in picked if f"/{segment:03}/" in path) for segment in range(100)]
    assert sum(counts) == 3000
    assert all(10 <= count <= 55 for count in counts)  # 30 expected, standard deviation 5.2
    chi_square = sum((count - 30) ** 2 / 30 for count in counts)
    assert 50 < chi_square < 160  # 99 degrees of freedom: mean 99, standard deviation 14


def test_over_http(mirror, run, tmp_path, monkeypatch):
    monkeypatch.setattr(https, "FIRST_PAUSE_S", 0.001)
    with serve(mirror) as server:
        server.faults.extend([Fault(503), Fault(cut=20), Fault(reset=True)])
        result = run("--root", server.url, "--files", "5")
        assert result.exit_code == 0, result.output
        requests = [seen.method for seen in server.requests]
    assert requests.count("HEAD") == 5
    assert requests.count("GET") == 4
    over_http = (tmp_path / "list").read_bytes()
    (tmp_path / "list").unlink()
    assert run("--root", str(mirror), "--files", "5").exit_code == 0
    assert (tmp_path / "list").read_bytes() == over_http


def test_the_lines_for_a_recipe_are_one(mirror, run, tmp_path):
    result = run("--root", str(mirror), "--files", "3")
    snippet = result.output.partition("For a recipe:\n")[2]
    (tmp_path / "recipe.yaml").write_text(f"name: x\n{snippet}")
    (source,) = load_recipe(tmp_path / "recipe.yaml").sources
    files = [split.files[0] for split in source.source.splits(source.root.open())]
    assert files == list(read_listing(tmp_path / "list"))
    assert yaml.safe_load(snippet)["sources"]["web"]["reader"] == "commoncrawl"


def test_no_reader_takes_metadata(mirror, run):
    result = run("--root", str(mirror), "--kind", "wat")
    assert "No reader of a recipe takes metadata" in result.output
    assert "For a recipe" not in result.output


def test_the_same_list_is_kept_and_another_is_refused(mirror, run, tmp_path):
    assert run("--root", str(mirror), "--files", "3").exit_code == 0
    before = (tmp_path / "list").read_bytes()
    assert run("--root", str(mirror), "--files", "3").exit_code == 0
    refused = run("--root", str(mirror), "--files", "4")
    assert refused.exit_code == 1
    assert "is there already and has other content\nhint: " in refused.output
    (mirror / read_listing(tmp_path / "list")[0].path).write_bytes(b"grown" * 100)
    assert run("--root", str(mirror), "--files", "3").exit_code == 1, "a size differs"
    assert (tmp_path / "list").read_bytes() == before


def test_a_list_that_is_another_is_refused_before_sizes_are_asked_for(mirror, run, tmp_path):
    (tmp_path / "list").write_text("mine\n")
    with serve(mirror) as server:
        assert run("--root", server.url).exit_code == 1
        assert "HEAD" not in [seen.method for seen in server.requests]
    assert (tmp_path / "list").read_text() == "mine\n"


@pytest.mark.parametrize(
    "dump",
    ["CC-MAIN-2024", "CC-MAIN-2024-22", "CC-MAIN-2008-2009", "CC-MAIN-2012"],
)
def test_names_of_dumps(tmp_path, dump):
    with pytest.raises(HeadraceError, match=f"crawl-data/{dump}/warc.paths.gz: is not there\nhint: check dump"):
        list_dump(LocalStorage(tmp_path), dump)


@pytest.mark.parametrize(
    "dump", ["", "2024-22", "CC-MAIN-2024-2", "cc-main-2024-22", "CC-MAIN-2024-22/../x", "CC-MAIN-2024-22\n", "CC-NEWS"]
)
def test_names_that_are_no_dumps(tmp_path, dump):
    with pytest.raises(HeadraceError, match="dump: found .*\nhint: write CC-MAIN-YYYY-WW"):
        list_dump(LocalStorage(tmp_path), dump)


@pytest.mark.parametrize("line", ["../../secret", "/etc/passwd", "https://example.com/a", "a\x1b[2Jb", "a//b"])
def test_names_of_files_are_not_trusted(mirror, run, tmp_path, line):
    _write_paths(mirror, "warc", gzip.compress(f"{_path(1)}\n{line}\n".encode()))
    result = run("--root", str(mirror))
    assert result.exit_code == 1
    assert "warc.paths.gz:2: " in result.output
    assert "\x1b" not in result.output
    assert not (tmp_path / "list").exists()


def test_a_list_of_any_ratio_takes_little_memory(mirror, run, monkeypatch):
    monkeypatch.setattr(listed, "MAX_LIST_BYTES", 1 << 20)
    _write_paths(mirror, "warc", gzip.compress(b"\n" * (100 << 20)))
    assert "has more than 1048576 bytes of text" in run("--root", str(mirror)).output


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0), gzip.compress(b"\n# nothing\n", mtime=0)])
def test_a_dump_without_files(mirror, run, data):
    _write_paths(mirror, "warc", data)
    result = run("--root", str(mirror))
    assert result.exit_code == 1
    assert "0 files are there" in result.output


def test_more_files_than_there_are(mirror, run):
    result = run("--root", str(mirror), "--files", "21")
    assert result.exit_code == 1
    assert f"{DUMP}: 20 files are there, 21 were asked for\nhint: " in result.output


def test_a_file_of_the_list_that_is_missing(mirror, run, tmp_path):
    (mirror / _path(4)).unlink()
    result = run("--root", str(mirror))
    assert result.exit_code == 1
    assert f"{_path(4)}: is listed, but not below" in result.output.replace("Error: ", "")
    assert not (tmp_path / "list").exists()


def test_an_output_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(crawl, [DUMP, "-o", str(tmp_path / "file/list"), "--root", str(mirror)])
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert "hint: " in result.output


def test_the_library_and_the_command_agree(mirror, run, tmp_path):
    run("--root", str(mirror), "--files", "7", "--kind", "wet")
    assert list_dump(LocalStorage(mirror), DUMP, "wet", 7) == [file.path for file in read_listing(tmp_path / "list")]


def test_what_is_said_of_the_bytes():
    files = [StoredFile("a", 1_234_567_890), StoredFile("b", 5)]
    lines = crawl_module.describe(Path("out/list"), "https://data.commoncrawl.org", "wet", files)
    assert lines[0] == "out/list: 2 files, 1,234,567,895 bytes (1.2 GB)"
    source = yaml.safe_load("\n".join(lines[lines.index("") :]))["sources"]["web"]
    assert source["root"] == "https://data.commoncrawl.org"
    assert Path(source["files"]).is_absolute()
    assert source["transforms"][0] == "extract"
