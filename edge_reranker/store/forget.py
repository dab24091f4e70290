"""Forgetting: events, and everything that only they needed."""

from __future__ import annotations

from sqlite_utils import Database

from edge_reranker.store import rankings
from edge_reranker.types import Forgotten

# Item ids that have a snapshot which the selected events saw.
_ITEM_OF_EVENT = (
    "SELECT DISTINCT i.item_id FROM events AS e JOIN items AS i ON i.id = e.item "
    "WHERE e.namespace = ? AND e.event_id = ?"
)


def everything(db: Database, namespace: str) -> Forgotten:
    """Remove all rows of the namespace, inside the caller's transaction."""
    _prefix(db, namespace)
    return Forgotten(
        events=_delete(db, "DELETE FROM events WHERE namespace = ?", namespace),
        items=_delete(db, "DELETE FROM items WHERE namespace = ?", namespace),
        vectors=_delete(db, "DELETE FROM vectors WHERE namespace = ?", namespace),
        rankings=_delete(db, "DELETE FROM rankings WHERE namespace = ?", namespace),
    )


# By kind, in an order in which nothing that is left refers to what is gone.
_SOME = {
    "events": "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE namespace = ? LIMIT ?)",
    "items": "DELETE FROM items WHERE id IN (SELECT id FROM items WHERE namespace = ? LIMIT ?)",
    "vectors": "DELETE FROM vectors WHERE (namespace, space, content_hash, item_id) IN "
    "(SELECT namespace, space, content_hash, item_id FROM vectors WHERE namespace = ? LIMIT ?)",
    "rankings": "DELETE FROM rankings WHERE rowid IN "
    "(SELECT rowid FROM rankings WHERE namespace = ? LIMIT ?)",
}


def some(db: Database, namespace: str, n_rows: int) -> Forgotten:
    """Remove at most ``n_rows`` rows of one kind; nothing only when the namespace has none left."""
    _prefix(db, namespace)
    for kind, sql in _SOME.items():
        n_gone = _delete(db, sql, namespace, n_rows)
        if n_gone:
            return Forgotten(**{kind: n_gone})
    return Forgotten()


def event(db: Database, namespace: str, event_id: str) -> Forgotten:
    """Remove one event and what it alone needed, inside the caller's transaction."""
    _prefix(db, namespace)
    item_ids = [row[0] for row in db.conn.execute(_ITEM_OF_EVENT, (namespace, event_id)).fetchall()]
    events = _delete(db, "DELETE FROM events WHERE namespace = ? AND event_id = ?", namespace, event_id)
    items = vectors = listed = 0
    for item_id in item_ids:
        more = _unneeded(db, namespace, item_id)
        items, vectors, listed = items + more[0], vectors + more[1], listed + more[2]
    return Forgotten(events, items, vectors, listed)


def item(db: Database, namespace: str, item_id: str) -> Forgotten:
    """Remove all events about an item and what is known of it, inside the caller's transaction."""
    _prefix(db, namespace)
    events = _delete(
        db,
        "DELETE FROM events WHERE item IN (SELECT id FROM items WHERE namespace = ? AND item_id = ?)",
        namespace,
        item_id,
    )
    return Forgotten(events, *_unneeded(db, namespace, item_id))


def _unneeded(db: Database, namespace: str, item_id: str) -> tuple[int, int, int]:
    """Remove an item's snapshots without event, its vectors, and rankings that list it; how many of each."""
    items = _delete(
        db,
        "DELETE FROM items WHERE namespace = ? AND item_id = ? "
        "AND NOT EXISTS (SELECT 1 FROM events WHERE events.item = items.id)",
        namespace,
        item_id,
    )
    needed = db.conn.execute(
        "SELECT 1 FROM items WHERE namespace = ? AND item_id = ?", (namespace, item_id)
    ).fetchone()
    vectors = 0
    if items or not needed:
        # Which of the item's texts a vector came from is not known here; those still needed are made again.
        vectors = _delete(db, "DELETE FROM vectors WHERE namespace = ? AND item_id = ?", namespace, item_id)
    return items, vectors, rankings.delete_listing(db, namespace, item_id)


def _prefix(db: Database, namespace: str) -> None:
    """Remove what a model made of the user's events, whichever: it is made again when it is needed."""
    _delete(db, "DELETE FROM prefixes WHERE namespace = ?", namespace)


def _delete(db: Database, sql: str, *values: object) -> int:
    return int(db.conn.execute(sql, values).rowcount)
