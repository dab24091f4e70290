"""Forgets that are being carried out: written down with their first row, struck out when nothing is left."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from sqlite_utils import Database

from edge_reranker.types import EventType, Selector, Span


@dataclass(slots=True)
class Promise:
    """What is to be forgotten; ``until`` is the newest event meant, None: no more come in between.

    ``id`` is the row that says so, ``kept`` that all rows are gone which were to go.
    """

    namespace: str
    selector: Selector
    until: int | None = None
    id: int | None = None
    kept: bool = False


def unfinished(db: Database) -> bool:
    """Whether some forget was cut off."""
    return db.conn.execute("SELECT 1 FROM forgets LIMIT 1").fetchone() is not None


def open_ones(db: Database) -> list[Promise]:
    """Those of which rows may still have to go, the oldest first."""
    rows = db.conn.execute(
        "SELECT namespace, selector, until, id FROM forgets WHERE selector IS NOT NULL ORDER BY id"
    )
    return [Promise(namespace, _decode(text), until, id_) for namespace, text, until, id_ in rows]


def write(db: Database, promise: Promise) -> None:
    """Write down how it stands, inside the caller's transaction; the selector only while it is needed."""
    text = None if promise.kept else _encode(promise.selector)
    db.conn.execute(
        "INSERT INTO forgets (id, namespace, selector, until) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET selector = excluded.selector",
        (promise.id, promise.namespace, text, promise.until or 0),
    )


def owe(db: Database) -> None:
    """Write down that rows went which are still beside the tables, inside the caller's transaction."""
    db.conn.execute("INSERT INTO forgets (namespace, selector, until) VALUES ('', NULL, 0)")


def strike(db: Database) -> None:
    """Strike out those of which no rows have to go."""
    db.conn.execute("DELETE FROM forgets WHERE selector IS NULL")


def next_id(db: Database) -> int:
    """The row for another one."""
    return int(db.conn.execute("SELECT ifnull(max(id), 0) + 1 FROM forgets").fetchone()[0])


def newest_event(db: Database) -> int:
    """The number of the newest event."""
    return int(db.conn.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0])


def _encode(selector: Selector) -> str:
    return json.dumps(dataclasses.asdict(selector))


def _decode(text: str) -> Selector:
    fields = json.loads(text)
    kind, span = fields["type"], fields["span"]
    fields["type"] = None if kind is None else EventType(kind)
    fields["span"] = None if span is None else Span(**span)
    return Selector(**fields)
