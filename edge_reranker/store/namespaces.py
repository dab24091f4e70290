"""Which namespaces there are, and who may go by whose events."""

from __future__ import annotations

from sqlite_utils import Database

from edge_reranker.errors import FailedPrecondition, InvalidArgument, NotFound
from edge_reranker.types import Grant, Namespace

DEFAULT = "default"


def listed(db: Database) -> list[Namespace]:
    """All that are not being deleted, by name."""
    by_reader: dict[str, list[Grant]] = {}
    for grant_ in grants(db):
        by_reader.setdefault(grant_.reader, []).append(grant_)
    count = "SELECT count(*) FROM events WHERE namespace = ?"
    return [
        Namespace(name, db.conn.execute(count, (name,)).fetchone()[0], tuple(by_reader.get(name, ())))
        for name in names(db)
    ]


def names(db: Database) -> list[str]:
    """The names of all that are not being deleted, in order."""
    rows = db.conn.execute("SELECT name FROM namespaces WHERE NOT ending ORDER BY name")
    return [row[0] for row in rows]


def counts(db: Database, name: str) -> dict[str, int]:
    """Rows of a namespace by kind: events, items, vectors, rankings."""
    sql = "SELECT count(*) FROM {} WHERE namespace = ?"
    kinds = ("events", "items", "vectors", "rankings")
    return {kind: db.conn.execute(sql.format(kind), (name,)).fetchone()[0] for kind in kinds}


def create(db: Database, name: str) -> None:
    """Make a namespace, or leave it as it is. Raises FailedPrecondition while it is being deleted."""
    if name in ending(db):
        raise FailedPrecondition(f"{name} is being deleted; delete it once more, then create it")
    db.conn.execute("INSERT INTO namespaces (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))


def require(db: Database, name: str) -> None:
    """Raises NotFound unless there is such a namespace."""
    found = db.conn.execute("SELECT 1 FROM namespaces WHERE name = ? AND NOT ending", (name,)).fetchone()
    if found is None:
        raise NotFound(f'"{name}" is not a namespace here; `edge-reranker namespace list` names them')


def mark(db: Database, name: str) -> None:
    """From here on it counts as gone, also after a crash. Raises InvalidArgument for the default one."""
    if name == DEFAULT:
        raise InvalidArgument("name", "the default namespace stays; forget everything in it instead")
    db.conn.execute("UPDATE namespaces SET ending = 1 WHERE name = ?", (name,))


def ending(db: Database) -> list[str]:
    """Those whose deletion was begun."""
    return [row[0] for row in db.conn.execute("SELECT name FROM namespaces WHERE ending")]


def remove(db: Database, name: str) -> None:
    """Take its row away, its rule of retention and its grants."""
    db.conn.execute("DELETE FROM retention WHERE namespace = ?", (name,))
    db.conn.execute("DELETE FROM namespaces WHERE name = ?", (name,))


def grants(db: Database) -> list[Grant]:
    """All grants, by reader and source."""
    rows = db.conn.execute("SELECT source, reader, granted_at FROM grants ORDER BY reader, source")
    return [Grant(*row) for row in rows]


def grant(db: Database, wanted: Grant) -> Grant:
    """Make a grant, or leave the one that holds; as it is then. Raises NotFound."""
    for name in (wanted.source, wanted.reader):
        require(db, name)
    db.conn.execute(
        "INSERT INTO grants (source, reader, granted_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (wanted.source, wanted.reader, wanted.granted_at),
    )
    return next(each for each in grants(db) if (each.source, each.reader) == (wanted.source, wanted.reader))


def revoke(db: Database, source: str, reader: str) -> None:
    """End a grant, and remove what was made of the source's events for the reader.

    Vectors of the source's items are not among it: they are kept in the source's own namespace.
    """
    db.conn.execute("DELETE FROM prefixes WHERE namespace = ?", (reader,))
    for kind in ("rankings", "choices"):
        db.conn.execute(
            f"DELETE FROM {kind} WHERE namespace = ? "  # noqa: S608 - a constant
            f"AND EXISTS (SELECT 1 FROM json_each({kind}.sources) WHERE value = ?)",
            (reader, source),
        )
    db.conn.execute("DELETE FROM grants WHERE source = ? AND reader = ?", (source, reader))
