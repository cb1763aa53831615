"""Ids back to text, with the markers of conversations and end-of-text shown by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokenizer.encodings import Encoding, build_tiktoken


def marker_names(encoding: Encoding) -> dict[int, str]:
    """Return how each id that no text can produce is shown."""
    roles = encoding.roles
    names = {name: getattr(roles, name) for name in ("end_of_turn", "system", "user", "assistant", "tool")}
    return {encoding.end_of_text: "<|endoftext|>", **{number: f"<|{name}|>" for name, number in names.items()}}


def decode(ids: np.ndarray, encoding: Encoding) -> str:
    """Return the text of ids (int32, any part of a document).

    A part may begin or end inside of a character: what is no UTF-8 becomes U+FFFD. An id that is neither text nor a
    marker is shown as its number.
    """
    return b"".join(_pieces(ids, encoding)).decode("utf-8", "replace")


def _pieces(ids: np.ndarray, encoding: Encoding) -> Iterator[bytes]:
    library, names = build_tiktoken(encoding), marker_names(encoding)
    done = 0
    for place in np.flatnonzero((ids >= encoding.ordinary) | (ids < 0)).tolist():
        yield library.decode_bytes(ids[done:place].tolist())
        yield names.get(int(ids[place]), f"<|{ids[place]}|>").encode()
        done = place + 1
    yield library.decode_bytes(ids[done:].tolist())
