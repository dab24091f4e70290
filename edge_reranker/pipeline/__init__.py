"""Candidates, context and deadline in; an order out. The only room that knows all tiers."""

from edge_reranker.pipeline.pipeline import Load, Pipeline

__all__ = ["Load", "Pipeline"]
