"""Forgetting: which rows go with a set of events, and their removal.

What goes is gathered first, in temporary tables (which are in memory only), and then counted, removed, or
both: so a dry run writes nothing, and counts what the real run removes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlite_utils import Database

from edge_reranker.store import rankings
from edge_reranker.store.events import decode_item
from edge_reranker.texts import content_hash
from edge_reranker.types import Forgotten, Selector, Span

_TABLES = {
    "going_events": "seq INTEGER PRIMARY KEY, namespace TEXT, item INTEGER",
    "going_items": "id INTEGER PRIMARY KEY, namespace TEXT, item_id TEXT",
    "going_vectors": "namespace TEXT, space TEXT, content_hash TEXT, item_id TEXT, "
    "PRIMARY KEY (namespace, space, content_hash, item_id)",
    "going_rankings": "id INTEGER PRIMARY KEY",
    "going_choices": "seq INTEGER PRIMARY KEY",
    "going_prefixes": "namespace TEXT PRIMARY KEY",
    "going_muted": "namespace TEXT, topic TEXT, PRIMARY KEY (namespace, topic)",
}
# In an order in which nothing that is left refers to what is gone. Choices would go with their events, too,
# but not be counted.
_REMOVALS = {
    "choices": "DELETE FROM choices WHERE seq IN (SELECT seq FROM temp.going_choices)",
    "events": "DELETE FROM events WHERE seq IN (SELECT seq FROM temp.going_events)",
    "items": "DELETE FROM items WHERE id IN (SELECT id FROM temp.going_items)",
    "vectors": "DELETE FROM vectors WHERE (namespace, space, content_hash, item_id) IN "
    "(SELECT namespace, space, content_hash, item_id FROM temp.going_vectors)",
    "rankings": "DELETE FROM rankings WHERE rowid IN (SELECT id FROM temp.going_rankings)",
    "prefixes": "DELETE FROM prefixes WHERE namespace IN (SELECT namespace FROM temp.going_prefixes)",
    "muted": "DELETE FROM muted WHERE (namespace, topic) IN (SELECT namespace, topic FROM temp.going_muted)",
}
# The first event of each namespace that goes: what was derived later may have been with it.
_FIRST = "(SELECT namespace, min(seq) AS first FROM temp.going_events GROUP BY namespace) AS g"
# The owner's own words, not of what was recorded: they are not in the receipt.
_UNCOUNTED = ("muted",)

_WHOLE = (
    "INSERT INTO temp.going_items SELECT id, namespace, item_id FROM items",
    "INSERT INTO temp.going_vectors SELECT namespace, space, content_hash, item_id FROM vectors",
    "INSERT INTO temp.going_rankings SELECT rowid FROM rankings",
    "INSERT INTO temp.going_choices SELECT seq FROM choices",
    "INSERT INTO temp.going_prefixes SELECT namespace FROM prefixes",
)


def remove(
    db: Database, namespace: str, selector: Selector, *, until: int | None = None, n_rows: int = -1
) -> Forgotten:
    """Remove what is selected and all that only that needed, inside the caller's transaction.

    Only events up to the one numbered ``until``; with ``n_rows`` only a part of at most about as many rows,
    and nothing only when nothing is left.
    """
    _gather(db, namespace, selector, until, n_rows)
    return _remove(db)


def gather(db: Database, namespace: str, selector: Selector) -> Forgotten:
    """What ``remove`` would remove, by kind. The temporary tables hold it."""
    _gather(db, namespace, selector, None, -1)
    counts = {kind: f"SELECT count(*) FROM temp.going_{kind}" for kind in _REMOVALS}  # noqa: S608 (constants)
    return _receipt({kind: int(db.conn.execute(sql).fetchone()[0]) for kind, sql in counts.items()})


def prepare(db: Database) -> None:
    """Make the temporary tables, or empty them; they are gone with the connection."""
    for name, columns in _TABLES.items():
        db.conn.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({columns}) WITHOUT ROWID")
        db.conn.execute(f"DELETE FROM temp.{name}")  # noqa: S608 - a constant


def _remove(db: Database) -> Forgotten:
    counts = {kind: int(db.conn.execute(sql).rowcount) for kind, sql in _REMOVALS.items()}
    prepare(db)
    return _receipt(counts)


def _receipt(counts: Mapping[str, Any]) -> Forgotten:
    return Forgotten(**{kind: n for kind, n in counts.items() if kind not in _UNCOUNTED})


def _gather(db: Database, namespace: str, selector: Selector, until: int | None, n_rows: int) -> None:
    prepare(db)
    everybody = "1" if selector.all_namespaces else "namespace = ?"
    whose = () if selector.all_namespaces else (namespace,)
    whole = selector.everything or selector.all_namespaces
    where, values = _condition(db, namespace, selector)
    _select(db, where, *values, until=until, n_rows=n_rows)
    if whole and (n_rows < 0 or not _any(db, "going_events")):
        # Also what no event needed, such as the vectors of what was only shown.
        for sql in _WHOLE:
            db.conn.execute(f"{sql} WHERE {everybody} LIMIT ?", (*whose, n_rows))
        # Few, and small: all at once, so that a part that finds nothing to count has left none.
        db.conn.execute(
            f"INSERT INTO temp.going_muted SELECT namespace, topic FROM muted WHERE {everybody}",  # noqa: S608
            whose,
        )
        _gather_lent(db)
        return
    _gather_unneeded(db)
    if selector.item_id:
        _gather_vectors_of(db, namespace, selector.item_id)
    _gather_rankings(db, *([(namespace, selector.item_id)] if selector.item_id else []))
    _gather_choices(db)
    _gather_lent(db)
    if n_rows >= 0 and (_any(db, "going_rankings") or _any(db, "going_choices")):
        # What was derived goes first, as a part of its own: afterwards nothing would say that it goes.
        for name, key in (("going_rankings", "id"), ("going_choices", "seq")):
            db.conn.execute(
                f"DELETE FROM temp.{name} WHERE {key} NOT IN "  # noqa: S608 - constants
                f"(SELECT {key} FROM temp.{name} ORDER BY {key} LIMIT ?)",
                (n_rows,),
            )
        for name in ("going_events", "going_items", "going_vectors"):
            db.conn.execute(f"DELETE FROM temp.{name}")  # noqa: S608 - a constant


def _condition(db: Database, namespace: str, selector: Selector) -> tuple[str, tuple[object, ...]]:
    """The WHERE clause that finds the selected events by an index, and its values."""
    match selector:
        case Selector(all_namespaces=True):
            return "1", ()
        case Selector(everything=True):
            return "namespace = ?", (namespace,)
        case Selector(event_id=str(event_id)) if event_id:
            return "namespace = ? AND event_id = ?", (namespace, event_id)
        case Selector(item_id=str(item_id)) if item_id:
            found = "SELECT id FROM items WHERE namespace = ? AND item_id = ?"
            return f"item IN ({found})", (namespace, item_id)
        case Selector(type=int(kind)) if kind:
            return "namespace = ? AND type = ?", (namespace, int(kind))
        case Selector(span=Span(from_s, to_s)):
            return "namespace = ? AND occurred_at >= ? AND occurred_at < ?", (namespace, from_s, to_s)
    ids = _json(_tagged(db, namespace, selector.tag.casefold()))
    return "item IN (SELECT value FROM json_each(?))", (ids,)


def _tagged(db: Database, namespace: str, folded: str) -> Iterator[int]:
    """The snapshots with a tag. SQLite folds the case of ASCII only."""
    for id_, tags in db.conn.execute("SELECT id, tags FROM items WHERE namespace = ?", (namespace,)):
        if any(tag.casefold() == folded for tag in json.loads(tags)):
            yield id_


def _select(db: Database, where: str, *values: object, until: int | None = None, n_rows: int = -1) -> None:
    prepare(db)
    # The oldest first: a number is given again only when the newest event of all has gone.
    db.conn.execute(
        "INSERT INTO temp.going_events SELECT seq, namespace, item FROM events "  # noqa: S608 (constants)
        f"WHERE {where} AND seq <= ? ORDER BY seq LIMIT ?",
        (*values, (1 << 63) - 1 if until is None else until, n_rows),
    )


def _gather_unneeded(db: Database) -> None:
    """Snapshots that only going events saw, vectors that only those need, and the model's state."""
    db.conn.execute(
        "INSERT INTO temp.going_items SELECT i.id, i.namespace, i.item_id FROM "
        "(SELECT DISTINCT item FROM temp.going_events) AS g CROSS JOIN items AS i ON i.id = g.item "
        "WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.item = i.id "
        "AND e.seq NOT IN (SELECT seq FROM temp.going_events))"
    )
    # Whichever they are: it is made again when it is needed.
    db.conn.execute(
        "INSERT INTO temp.going_prefixes SELECT namespace FROM prefixes "
        "WHERE namespace IN (SELECT namespace FROM temp.going_events)"
    )
    # Of an item without a snapshot that stays, all vectors; most are. Of the others, one by one.
    items = "(SELECT DISTINCT namespace, item_id FROM temp.going_items) AS g"
    stays = (
        "EXISTS (SELECT 1 FROM items AS i WHERE i.namespace = g.namespace AND i.item_id = g.item_id "
        "AND i.id NOT IN (SELECT id FROM temp.going_items))"
    )
    db.conn.execute(
        "INSERT INTO temp.going_vectors SELECT v.namespace, v.space, v.content_hash, v.item_id "  # noqa: S608
        f"FROM {items} CROSS JOIN vectors AS v ON v.namespace = g.namespace AND v.item_id = g.item_id "
        f"WHERE NOT {stays}"
    )
    some = f"SELECT g.namespace, g.item_id FROM {items} WHERE {stays}"  # noqa: S608 - constants
    for namespace, item_id in db.conn.execute(some).fetchall():
        _gather_vectors_of(db, namespace, item_id)


def _gather_vectors_of(db: Database, namespace: str, item_id: str) -> None:
    """The vectors of an item's going snapshots, or all of the item when no snapshot stays.

    Those of texts that a snapshot which stays has too are needed, and those by the item's id alone.
    """
    snapshots = db.conn.execute(
        "SELECT id IN (SELECT id FROM temp.going_items), title, text, tags, attributes FROM items "
        "WHERE namespace = ? AND item_id = ?",
        (namespace, item_id),
    ).fetchall()
    names: dict[bool, set[str]] = defaultdict(set)
    for goes, *content in snapshots:
        names[bool(goes)].add(content_hash(decode_item(item_id, *content)))
    which, values = "", [namespace, item_id]
    if names[False]:
        which = "AND content_hash IN (SELECT value FROM json_each(?))"
        values.append(_json(sorted(names[True] - names[False])))
    db.conn.execute(
        "INSERT OR IGNORE INTO temp.going_vectors SELECT namespace, space, content_hash, item_id "  # noqa: S608
        f"FROM vectors WHERE namespace = ? AND item_id = ? {which}",
        values,
    )


def _gather_rankings(db: Database, *more: tuple[str, str]) -> None:
    """Rankings made while a going event was known, and those that list its item or one of ``more``."""
    db.conn.execute(
        f"INSERT INTO temp.going_rankings SELECT r.rowid FROM {_FIRST} "  # noqa: S608 - constants
        "CROSS JOIN rankings AS r ON r.namespace = g.namespace AND r.newest_event >= g.first"
    )
    listed: dict[str, set[str]] = defaultdict(set)
    about = (
        "SELECT DISTINCT g.namespace, i.item_id FROM temp.going_events AS g "
        "CROSS JOIN items AS i ON i.id = g.item"
    )
    for namespace, item_id in (*db.conn.execute(about).fetchall(), *more):
        listed[namespace].add(item_id)
    for namespace, item_ids in listed.items():
        found = [(id_,) for id_ in rankings.listing(db, namespace, item_ids)]
        db.conn.executemany("INSERT OR IGNORE INTO temp.going_rankings VALUES (?)", found)


def _gather_choices(db: Database) -> None:
    """Those of going events, and those from rankings that were made while one of them was known."""
    db.conn.execute(
        "INSERT INTO temp.going_choices SELECT c.seq FROM temp.going_events AS g "
        "CROSS JOIN choices AS c ON c.seq = g.seq"
    )
    db.conn.execute(
        f"INSERT OR IGNORE INTO temp.going_choices SELECT c.seq FROM {_FIRST} "  # noqa: S608 - constants
        "CROSS JOIN choices AS c ON c.namespace = g.namespace AND c.newest_event >= g.first"
    )


def _gather_lent(db: Database) -> None:
    """Of namespaces that go by a going event's, by a grant: what was derived since, and the model's state."""
    for kind, key in (("rankings", "rowid"), ("choices", "seq")):
        db.conn.execute(
            f"INSERT OR IGNORE INTO temp.going_{kind} SELECT r.{key} FROM {_FIRST} "  # noqa: S608 - constants
            "CROSS JOIN grants AS t ON t.source = g.namespace "
            f"CROSS JOIN {kind} AS r ON r.namespace = t.reader AND r.newest_event >= g.first "
            "WHERE EXISTS (SELECT 1 FROM json_each(r.sources) WHERE value = g.namespace)"
        )
    db.conn.execute(
        "INSERT OR IGNORE INTO temp.going_prefixes SELECT p.namespace FROM prefixes AS p "
        "JOIN grants AS t ON t.reader = p.namespace "
        "WHERE t.source IN (SELECT namespace FROM temp.going_events)"
    )


def _any(db: Database, name: str) -> bool:
    return db.conn.execute(f"SELECT 1 FROM temp.{name} LIMIT 1").fetchone() is not None  # noqa: S608


def _json(values: Iterable[object]) -> str:
    return json.dumps(list(values))
