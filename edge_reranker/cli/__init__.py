"""The command line, and the only place that wires real parts together."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``edge-reranker``."""
    try:
        from edge_reranker.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(
            f"Error: {error.name} is not installed; the commands need `pip install 'edge-reranker[device]'`"
        )
    except KeyboardInterrupt:
        sys.exit(130)  # importing takes half a second, and `run` handles it only from then on
    run()
