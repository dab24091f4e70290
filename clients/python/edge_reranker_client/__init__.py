"""Client for the edge-reranker service."""
