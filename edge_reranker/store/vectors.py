"""Item vectors by the hash of the text that they were made of."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlite_utils import Database


def get(db: Database, namespace: str, space: str, hashes: Sequence[str]) -> dict[str, bytes]:
    """The vectors that are known, by content hash."""
    # One list as one parameter: the statement stays the same, and prepared, for every number of hashes.
    rows = db.conn.execute(
        "SELECT v.content_hash, v.vector FROM json_each(?) AS j CROSS JOIN vectors AS v "
        "WHERE v.namespace = ? AND v.space = ? AND v.content_hash = j.value",
        (json.dumps(list(hashes)), namespace, space),
    )
    return dict(rows.fetchall())


def put(db: Database, namespace: str, space: str, rows: Sequence[tuple[str, str, bytes]]) -> None:
    """Store (content hash, item id, vector) rows; a newer vector takes an older one's place."""
    db.conn.executemany(
        "INSERT INTO vectors (namespace, space, content_hash, item_id, vector) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET vector = excluded.vector",
        [(namespace, space, *row) for row in rows],
    )
