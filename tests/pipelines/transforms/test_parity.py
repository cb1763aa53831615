"""With datatrove's words in the place of ours, its rules and ours say the same of real English documents."""

from __future__ import annotations

import pytest
from agreement import MOST_CHARACTERS, compare
from english_texts import read_english_texts
from runs import SHARED

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")

NUM_RULES = 30


def test_every_rule_gives_datatroves_verdict(capsys):
    texts = {name: text for name, text in read_english_texts(SHARED).items() if len(text) <= MOST_CHARACTERS}
    assert len(texts) >= 2_000
    compared = list(compare(texts, datatrove_words=True))
    with capsys.disabled():
        print(f"\n{len(texts)} English documents, {sum(len(text) for text in texts.values())} characters")
        for one in compared:
            if one.differ:
                print(f"{one.family}.{one.rule}: {one.agreement:.4%}, not on {', '.join(one.differ)}")
    assert len(compared) == NUM_RULES
    assert {one.rule: one.agreement for one in compared if one.agreement < 0.999} == {}
    assert sum(one.dropped > 0 for one in compared) >= 20  # rules that no document breaks prove little
