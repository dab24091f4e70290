"""pyarrow, where it is installed."""

from __future__ import annotations

from typing import Any

from edge_reranker.errors import Missing


def require_arrow(what: str, otherwise: str) -> Any:
    """The library. Raises Missing: ``what`` needs it, and ``otherwise`` is how to do without."""
    try:
        import pyarrow
    except ImportError as error:
        raise Missing(f"{what}: pip install 'edge-reranker[backend]', or {otherwise}") from error
    return pyarrow
