"""The output of one real run, which reports are made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made import made_recipe
from runs import run_recipe


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the made recipe. Not to be changed: see `copied`."""
    folder = tmp_path_factory.mktemp("made")
    run_recipe(made_recipe(folder), folder / "out")
    return folder / "out"


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the made output that may be altered."""
    return Path(shutil.copytree(made, tmp_path / "copy"))
