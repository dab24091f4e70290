"""What the service remembers: events, item snapshots, vectors and rankings, encrypted, in one SQLite file."""

from edge_reranker.store.check import inspect_store, kept_fingerprint
from edge_reranker.store.store import Store

__all__ = ["Store", "inspect_store", "kept_fingerprint"]
