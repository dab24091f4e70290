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

from edge_reranker.store.at_rest import list_backups, make_backup, restore_backup  # noqa: E402 - after what is above
from edge_reranker.store.backups import Backup  # noqa: E402
from edge_reranker.store.check import inspect_store, kept_fingerprint  # noqa: E402
from edge_reranker.store.imports import Import  # noqa: E402
from edge_reranker.store.recovery import Quarantined, mark_told, quarantined  # noqa: E402
from edge_reranker.store.rotation import export_key, import_key, rotate  # noqa: E402
from edge_reranker.store.store import Store  # noqa: E402

__all__ = [
    "Backup",
    "Import",
    "Quarantined",
    "Store",
    "export_key",
    "import_key",
    "inspect_store",
    "kept_fingerprint",
    "list_backups",
    "make_backup",
    "mark_told",
    "quarantined",
    "restore_backup",
    "rotate",
]
