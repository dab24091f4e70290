"""The command line, and the only place that wires real parts together."""

from __future__ import annotations


def main() -> None:
    """Entry point of ``edge-reranker``."""
    from edge_reranker.cli.app import run

    run()
