"""Ids become text again, whatever part of a document they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.decode import decode
from tokenizer.encode import encode_documents
from tokenizer.encodings import CL100K_BASE, O200K_BASE


@pytest.mark.parametrize("encoding", [CL100K_BASE, O200K_BASE])
@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_what_was_encoded_is_decoded(encoding, text):
    text = text.encode("utf-8", "ignore").decode()
    encoded = encode_documents(encoding, pa.array([text], pa.large_string()), None, "tiktoken")
    assert decode(encoded.ids[0].values.to_numpy(), encoding) == text + "<|endoftext|>"


def test_markers_by_name_and_halves_of_characters():
    roles = CL100K_BASE.roles
    ids = np.array([roles.user, 9906, roles.end_of_turn, roles.assistant, 13347, roles.end_of_turn, 100_257], np.int32)
    assert decode(ids, CL100K_BASE) == "<|user|>Hello<|end_of_turn|><|assistant|>Hi<|end_of_turn|><|endoftext|>"
    crab = encode_documents(CL100K_BASE, pa.array(["🦀"], pa.large_string()), None, "tiktoken").ids[0].values.to_numpy()
    assert len(crab) > 2
    assert decode(crab[:1], CL100K_BASE) == "\ufffd"
    assert decode(np.array([100_300, -1], np.int32), CL100K_BASE) == "<|100300|><|-1|>"
    assert decode(np.empty(0, np.int32), CL100K_BASE) == ""
