"""What an item says, made plain, and the name of that text: the same to who encodes, keeps or forgets it."""

from __future__ import annotations

import hashlib
import unicodedata

from edge_reranker.types import Item

MAX_TITLE_CHARS = 160
MAX_TAGS_CHARS = 160
MAX_TEXT_CHARS = 240


def clean(text: str, max_chars: int) -> str:
    """``text`` in NFC, without control and invisible characters, white space folded, cut to ``max_chars``.

    What looks like a control string stays: the engine never reads data as control tokens.
    """
    # Cut first: normalising a megabyte to keep a line of it would let one candidate slow the others.
    text = " ".join(text[: 4 * max_chars].split())
    # Not printable are the categories Cc, Cf (zero-width, bidirectional overrides), Cs, Co and Cn. They go
    # first: what stood on both sides of one may be two spaces, or a letter and its accent.
    if not text.isprintable():
        text = " ".join("".join(c for c in text if c.isprintable()).split())
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text[:max_chars].strip()


def item_text(item: Item) -> str:
    """ "Title. tag, tag. text", without the parts the item does not have."""
    parts = (
        clean(item.title, MAX_TITLE_CHARS),
        clean(", ".join(item.tags), MAX_TAGS_CHARS),
        clean(item.text, MAX_TEXT_CHARS),
    )
    return ". ".join(part for part in parts if part)


def content_hash(item: Item) -> str:
    """Names an item's text: two items that read the same have the same vector."""
    return _name(item_text(item))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


NO_TEXT = _name("")
"""The content hash of an item that says nothing."""
