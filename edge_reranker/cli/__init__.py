"""The command line, and the only place that wires real parts together."""

from __future__ import annotations

import sys
from collections.abc import Callable


def main() -> None:
    """Entry point of ``edge-reranker``."""
    try:
        _imported()()
    except KeyboardInterrupt:
        sys.exit(130)  # while importing, which takes half a second, or right before or after the command


def _imported() -> Callable[[], None]:
    try:
        from edge_reranker.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(
            f"Error: {error.name} is not installed; the commands need `pip install 'edge-reranker[device]'`"
        )
    return run
