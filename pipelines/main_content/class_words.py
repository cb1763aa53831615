"""The words in `class`, `id`, `role`, `itemprop` and `style` that tell what a part of a page is, and their automaton.

One pass of an Aho-Corasick automaton over the attribute values sets a bit for each group (Aho & Corasick 1975). Letters
are lower-cased, every other byte is a separator, written "|" below; values begin and end with one.
"""

from __future__ import annotations

from collections import deque

import numpy as np

GROUPS: dict[str, str] = {
    "comment": "comment kommentar coment disqus discuss |reply |replies respond reaction opinion livefyre |reacties",
    "nav": "|nav| navbar naviga menu breadcrumb |crumb toolbar |skip pagin pager |toc| |tabs",
    "footer": "footer |foot| |bottom colophon copyright legal imprint",
    "header": "|header masthead banner |top| topbar |logo headerbar",
    "side": "sidebar aside widget |rail| |right| |left| sidecol column-right module rightcol",
    "related": "related recommend popular trending |more| readmore read|more teaser similar most|read |also| mehr|zum "
    "promo latest recirc upnext |next| |prev archive",
    "share": "share sharing social facebook twitter |like| follow addthis |print| email| whatsapp",
    "advert": "advert |ad| |ads| sponsor |dfp outbrain taboola anzeige werbung |adsense promoted commercial",
    "meta": "byline author |date| |meta| posted timestamp pubdate |time| |info| category categories |tag| |tags| "
    "entry|meta postmeta |bio| dateline",
    "caption": "caption credit legende bildunter |gallery slideshow |figure| thumb bildtext",
    "article": "article |post| entry |story storytext maincontent main|content |content| articlebody post|body "
    "post|content body|text bodytext newsbody artikel beitrag contentbody |text| hentry",
    "intro": "|lead| |intro| teasertext |abstract| summary |deck| |standfirst| subtitle |dek| |kicker",
    "hidden": "|hidden| display|none invisible visually|hidden sr|only screen|reader modal overlay popup |collapse "
    "tooltip offscreen visibility|hidden |noprint",
    "consent": "cookie consent gdpr privacy|",
    "subscribe": "newsletter subscri signup |login signin |register abonn paywall |donate |form|",
    "forum": "|thread |message |forum topic |postbody |signature| |reply|body |quote|",
    "shop": "product price |cart| basket shop |sku rating review |offer warenkorb",
    "heading": "headline |title| entry|title post|title |heading",
    "quote": "pullquote |pull| blockquote |tweet twitter|tweet embed",
    "code": "|code highlight |syntax |source|code| |pre| snippet",
}
"""Bit i of a mask is group i."""

NUM_GROUPS = len(GROUPS)
HIDDEN_BIT = list(GROUPS).index("hidden")
SYMBOLS = 28
"""Letters 1 to 26, separators 27; 0 is never an input."""


def automaton() -> tuple[np.ndarray, np.ndarray]:
    """Return moves (int16, shape (states * 28,)) and the mask of every state (int64); the start is state 0."""
    children: list[dict[int, int]] = [{}]
    masks = [0]
    for place, words in enumerate(GROUPS.values()):
        for word in words.split():
            state = 0
            for letter in word:
                state = _child(children, masks, state, ord(letter) - 96 if letter.isalpha() else 27)
            masks[state] |= 1 << place
    moves = np.zeros((len(children), SYMBOLS), np.int16)
    fails = [0] * len(children)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        masks[state] |= masks[fails[state]]
        for symbol in range(1, SYMBOLS):
            fallback = int(moves[fails[state], symbol]) if state else 0
            child = children[state].get(symbol)
            if child is None:
                moves[state, symbol] = fallback
            else:
                moves[state, symbol] = child
                fails[child] = fallback
                queue.append(child)
    return moves.ravel(), np.array(masks, np.int64)


def _child(children: list[dict[int, int]], masks: list[int], state: int, symbol: int) -> int:
    """Return the state behind `symbol`, made if it is new."""
    if symbol not in children[state]:
        children[state][symbol] = len(children)
        children.append({})
        masks.append(0)
    return children[state][symbol]


def symbol_table() -> np.ndarray:
    """Return the symbol of every byte: uint8, shape (256,)."""
    symbols = np.full(256, 27, np.uint8)
    for letter in range(26):
        symbols[0x41 + letter] = symbols[0x61 + letter] = letter + 1
    return symbols
