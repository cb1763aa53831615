"""One whole run of the small recipe, which the laws are held against."""

from __future__ import annotations

import pytest
from runs import run_recipe, small_recipe


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    return small_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def reference(recipe, tmp_path_factory):
    """One whole run with one worker, and its result."""
    output = tmp_path_factory.mktemp("reference") / "out"
    return output, run_recipe(recipe, output)
