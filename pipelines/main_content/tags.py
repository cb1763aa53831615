"""The elements of HTML as the scan sees them: what makes a node, what ends what, whose content is no text.

After the HTML standard, sections 13.1.2 (kinds of elements) and 13.2.6 (tree construction), cut down to what decides
where a block of text begins and ends. Inline elements make no node: they only switch "in a link" and "bold".
"""

from __future__ import annotations

import numpy as np

FNV_PRIME = 0x100000001B3
"""A name's hash is 64-bit FNV-like over its lower-cased bytes, as a signed integer (kernels wrap alike)."""

NODE_NAMES = """
p div li ul ol dl dt dd table tr td th caption h1 h2 h3 h4 h5 h6 section article aside nav header footer main figure
figcaption blockquote pre form fieldset details summary address center hgroup dialog menu dir listing button legend
search
"""
"""Elements that make a node: a block of text never reaches over their start or end tag."""
RAW_NAMES = "script style textarea title xmp iframe noembed noframes noscript svg select template"
"""Elements whose content is skipped up to their end tag (the title's is kept aside)."""
ASIDE_NAMES = "rt rp annotation"
"""Readings of ruby and sources of formulas, which say again what stands beside them: skipped if they end soon."""
OTHER_NAMES = "a b strong br hr html body meta img time plaintext wbr tbody thead tfoot"
NAMES = ("", "custom", *NODE_NAMES.split(), *RAW_NAMES.split(), *ASIDE_NAMES.split(), *OTHER_NAMES.split())
"""All names that are told apart; a tag is its place in this tuple. 0 is any other element (inline), 1 any element with
a hyphen in its name, which makes a node as `div` does."""

TAG = {name: place for place, name in enumerate(NAMES)}
NUM_NODE_TAGS = 2 + len(NODE_NAMES.split())
"""Tags from 1 to below this make nodes."""
FIRST_RAW, END_RAW, END_ASIDE = TAG["script"], TAG["rt"], TAG["a"]

CUSTOM = 1
P, LI, DT, DD, TR, TD, TH = (TAG[name] for name in ("p", "li", "dt", "dd", "tr", "td", "th"))
UL, OL, DL, MENU, DIR = (TAG[name] for name in ("ul", "ol", "dl", "menu", "dir"))
TABLE, CAPTION, BUTTON = TAG["table"], TAG["caption"], TAG["button"]
H1, H6, PRE, LISTING, BLOCKQUOTE = TAG["h1"], TAG["h6"], TAG["pre"], TAG["listing"], TAG["blockquote"]
FIGCAPTION, DIV = TAG["figcaption"], TAG["div"]
TITLE, SVG, SELECT, NOSCRIPT, TEMPLATE = (TAG[name] for name in ("title", "svg", "select", "noscript", "template"))
A, B, STRONG, BR, HR, HTML, BODY, META, IMG, TIME, PLAINTEXT = (
    TAG[name] for name in ("a", "b", "strong", "br", "hr", "html", "body", "meta", "img", "time", "plaintext")
)
TBODY, THEAD, TFOOT = TAG["tbody"], TAG["thead"], TAG["tfoot"]

_ANCESTORS = "article main section aside nav header footer form table li figure blockquote dl p"
ANCESTORS = _ANCESTORS.split()
"""Elements that a block is asked about: is one of them open around it? A node's bit is the place in this list."""

TABLE_SIZE = 1024


def name_hash(name: str) -> int:
    """Return the hash that the scan makes of a tag's or attribute's name, as a signed 64-bit integer."""
    value = 0
    for byte in name.encode():
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value


def hash_table(names: dict[str, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an open-addressed table of name hashes (0 = free) and the values beside them, both int64 of `size`.

    A name lies at its hash's low bits, or behind; `size` is a power of two, far above the number of names.
    """
    keys, values = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for name, value in names.items():
        key = name_hash(name)
        place = (key ^ (key >> 17)) & (size - 1)
        while keys[place]:
            place = (place + 1) & (size - 1)
        keys[place], values[place] = key, value
    return keys, values


def tag_table() -> tuple[np.ndarray, np.ndarray]:
    """Return the table from a tag name's hash to its place in `NAMES`."""
    return hash_table({name: place for name, place in TAG.items() if place > CUSTOM}, TABLE_SIZE)


def ancestor_bits() -> np.ndarray:
    """Return for every tag its bit among `ANCESTORS`: int64, shape (tags,)."""
    bits = np.zeros(len(NAMES), np.int64)
    for place, name in enumerate(ANCESTORS):
        bits[TAG[name]] = 1 << place
    bits[TAG["th"]] = 0
    return bits
