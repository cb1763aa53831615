"""The engines by name. Each is imported only when it is chosen: a laptop needs no Spark, and a cluster no Slurm."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from pipelines.engines.engine import Engine
from pipelines.errors import HeadraceError

ENGINES = {
    "datatrove": ("pipelines.engines.datatrove", "DatatroveEngine", "core"),
    "slurm": ("pipelines.engines.slurm", "SlurmEngine", "core"),
    "spark": ("pipelines.engines.spark", "SparkEngine", "spark"),
    "beam": ("pipelines.engines.beam", "BeamEngine", "beam"),
}
"""Module, class, and the extra of the package that brings what it needs."""


def make_engine(name: str, workers: int, options: Mapping[str, str]) -> Engine:
    """Return the engine of this name. Raises `HeadraceError` where its packages are missing, or an option is wrong."""
    module, cls, extra = ENGINES[name]
    try:
        engine: Engine = getattr(importlib.import_module(module), cls)(workers, options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "pipelines":
            raise
        raise HeadraceError(
            f"engine {name}: package {error.name} is not installed\nhint: pip install 'headrace[{extra}]'"
        ) from error
    return engine
