"""Every transform that a recipe may name, by that name."""

from __future__ import annotations

from pipelines.transforms.extract import Extract
from pipelines.transforms.gopher import GopherQuality
from pipelines.transforms.language import Language

TRANSFORMS: dict[str, type[Extract] | type[Language] | type[GopherQuality]] = {
    Extract.name: Extract,
    Language.name: Language,
    GopherQuality.name: GopherQuality,
}
"""The class for each word under `transforms:`; its fields are the keys that the recipe may set."""
