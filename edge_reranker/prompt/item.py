"""An item's public text, as the encoder reads it."""

from __future__ import annotations

import hashlib

from edge_reranker.prompt.normalise import clean
from edge_reranker.types import Item, Piece

MAX_TITLE_CHARS = 160
MAX_TAGS_CHARS = 160
MAX_TEXT_CHARS = 240


def item_text(item: Item) -> str:
    """ "Title. tag, tag. text", without the parts the item does not have."""
    parts = (
        clean(item.title, MAX_TITLE_CHARS),
        clean(", ".join(item.tags), MAX_TAGS_CHARS),
        clean(item.text, MAX_TEXT_CHARS),
    )
    return ". ".join(part for part in parts if part)


def item_pieces(item: Item, prefix: str = "") -> list[Piece]:
    """The same behind ``prefix``, for the tokenizer: all of it is data."""
    return [Piece(prefix + item_text(item))]


def content_hash(item: Item) -> str:
    """Names an item's text: two items that read the same have the same vector."""
    return _name(item_text(item))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


NO_TEXT = _name("")
"""The content hash of an item that says nothing."""
