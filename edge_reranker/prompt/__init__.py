"""From records to marked text: what a model reads, with structure and data kept apart."""

from edge_reranker.prompt.item import item_pieces
from edge_reranker.prompt.templates import TEMPLATES, Template, plain
from edge_reranker.prompt.window import Window
from edge_reranker.texts import NO_TEXT, clean, content_hash, item_text

__all__ = [
    "NO_TEXT",
    "TEMPLATES",
    "Template",
    "Window",
    "clean",
    "content_hash",
    "item_pieces",
    "item_text",
    "plain",
]
