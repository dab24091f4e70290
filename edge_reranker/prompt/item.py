"""An item's public text, as the encoder reads it."""

from __future__ import annotations

from edge_reranker.texts import item_text
from edge_reranker.types import Item, Piece


def item_pieces(item: Item, prefix: str = "") -> list[Piece]:
    """Its text behind ``prefix``, for the tokenizer: all of it is data."""
    return [Piece(prefix + item_text(item))]
