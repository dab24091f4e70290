"""``python -m edge_reranker.cli``: the same as ``edge-reranker``."""

from edge_reranker.cli import main

main()
