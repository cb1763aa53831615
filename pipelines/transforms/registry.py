"""Every transform that a recipe may name, by that name."""

from __future__ import annotations

from typing import Any

from pipelines.transforms.c4 import C4Quality
from pipelines.transforms.code_quality import CodeQuality
from pipelines.transforms.contamination import Contamination
from pipelines.transforms.conversation_quality import ConversationQuality
from pipelines.transforms.extract import Extract
from pipelines.transforms.fineweb import FineWebQuality
from pipelines.transforms.gopher import GopherQuality
from pipelines.transforms.gopher_repetition import GopherRepetition
from pipelines.transforms.language import Language
from pipelines.transforms.licence import Licence
from pipelines.transforms.pii import Pii
from pipelines.transforms.quality import Quality
from pipelines.transforms.refinedweb_lines import RefinedWebLines
from pipelines.transforms.rights import Rights
from pipelines.transforms.url_rules import UrlRules

TRANSFORMS: dict[str, type[Any]] = {
    UrlRules.name: UrlRules,
    Rights.name: Rights,
    Extract.name: Extract,
    Language.name: Language,
    GopherQuality.name: GopherQuality,
    GopherRepetition.name: GopherRepetition,
    C4Quality.name: C4Quality,
    FineWebQuality.name: FineWebQuality,
    RefinedWebLines.name: RefinedWebLines,
    CodeQuality.name: CodeQuality,
    ConversationQuality.name: ConversationQuality,
    Pii.name: Pii,
    Quality.name: Quality,
    Licence.name: Licence,
    Contamination.name: Contamination,
}
"""The class for each word under `transforms:`; its fields are the keys that the recipe may set."""
