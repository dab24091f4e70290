"""One number for all that a namespace holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from sqlite_utils import Database

# Without what is going, as ``forget.gather`` has found it. An item's own digest stands for its content.
_ROWS = {
    "event": "SELECT e.event_id, e.type, e.occurred_at, e.query, e.dwell_s, e.surface, e.session_id, "
    "e.ranking_id, e.position, e.context, i.item_id, hex(i.digest) "
    "FROM events AS e LEFT JOIN items AS i ON i.id = e.item "
    "WHERE e.namespace = ? AND e.seq NOT IN (SELECT seq FROM temp.going_events)",
    "item": "SELECT item_id, hex(digest) FROM items "
    "WHERE namespace = ? AND id NOT IN (SELECT id FROM temp.going_items)",
    "vector": "SELECT space, content_hash, item_id, hex(vector) FROM vectors WHERE namespace = ? "
    "AND (namespace, space, content_hash, item_id) NOT IN "
    "(SELECT namespace, space, content_hash, item_id FROM temp.going_vectors)",
    "ranking": "SELECT ranking_id, created_at, surface, session_id, body FROM rankings "
    "WHERE namespace = ? AND rowid NOT IN (SELECT id FROM temp.going_rankings)",
    "choice": "SELECT e.event_id, c.sources, hex(c.body) FROM choices AS c JOIN events AS e ON e.seq = c.seq "
    "WHERE c.namespace = ? AND c.seq NOT IN (SELECT seq FROM temp.going_choices)",
    "muted": "SELECT topic FROM muted "
    "WHERE namespace = ? AND (namespace, topic) NOT IN (SELECT namespace, topic FROM temp.going_muted)",
}


def remaining(db: Database, namespace: str) -> str:
    """SHA-256, in hex, of all that stays in the namespace.

    That is every event, item snapshot, vector, ranking, choice and muted topic.

    A row is the JSON list of its kind and its columns, with an item's id and the SHA-256 of its content in
    place of the row that it has; numbers that the database counts rows by are left out, so it does not
    matter in which order rows came, or what was there in between. The digest is of the rows' SHA-256s,
    sorted and joined.
    Not covered: the model's state, which is made of the events, what a ranking was made of, which only the
    newest have, and rules such as retention and grants.
    Needs the tables of ``forget.prepare``.
    """
    return hashlib.sha256(b"".join(sorted(_digests(db, namespace)))).hexdigest()


def _digests(db: Database, namespace: str) -> Iterator[bytes]:
    for kind, sql in _ROWS.items():
        for row in db.conn.execute(sql, (namespace,)):
            yield hashlib.sha256(_encode([kind, *row])).digest()


def _encode(row: list[Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()
