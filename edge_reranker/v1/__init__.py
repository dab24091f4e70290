"""Generated from proto/edge_reranker/v1 by `make proto`; never edited by hand."""
