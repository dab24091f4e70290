"""What the service remembers: events, item snapshots, vectors and rankings, encrypted, in one SQLite file."""

import sys

# sqlite-utils imports pandas wherever it is installed, for a service 60 MB of memory that it has no use for.
_HIDDEN = "pandas" not in sys.modules
if _HIDDEN:
    sys.modules["pandas"] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
try:
    import sqlite_utils  # noqa: F401
finally:
    if _HIDDEN:
        del sys.modules["pandas"]

from edge_reranker.store.check import inspect_store, kept_fingerprint  # noqa: E402 - after what is above
from edge_reranker.store.imports import Import  # noqa: E402
from edge_reranker.store.store import Store  # noqa: E402

__all__ = ["Import", "Store", "inspect_store", "kept_fingerprint"]
