"""From records to marked text: what a model reads, with structure and data kept apart."""

from edge_reranker.prompt.item import NO_TEXT, content_hash, item_pieces, item_text
from edge_reranker.prompt.normalise import clean
from edge_reranker.prompt.templates import TEMPLATES, Template, plain
from edge_reranker.prompt.window import Window

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
