"""One finished run of the made recipe, which verify and explain look at."""

from __future__ import annotations

import pytest
from made import made_recipe
from runs import run_recipe


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The path of the made recipe."""
    return made_recipe(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def finished(made, tmp_path_factory):
    """The output of one run of it. Not to be changed: copy it."""
    output = tmp_path_factory.mktemp("finished") / "out"
    run_recipe(made, output)
    return output
