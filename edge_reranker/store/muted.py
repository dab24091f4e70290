"""Topics that the owner muted, casefolded."""

from __future__ import annotations

from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument


def topics(db: Database, namespace: str) -> tuple[str, ...]:
    """The muted topics of a namespace, in order."""
    rows = db.conn.execute("SELECT topic FROM muted WHERE namespace = ? ORDER BY topic", (namespace,))
    return tuple(row[0] for row in rows)


def add(db: Database, namespace: str, topic: str) -> None:
    """Mute a topic, inside the caller's transaction, or leave it muted."""
    db.conn.execute(
        "INSERT INTO muted (namespace, topic) VALUES (?, ?) ON CONFLICT DO NOTHING", (namespace, topic)
    )


def remove(db: Database, namespace: str, topic: str) -> None:
    """Take that back, inside the caller's transaction."""
    db.conn.execute("DELETE FROM muted WHERE namespace = ? AND topic = ?", (namespace, topic))


def folded(topic: str) -> str:
    """As a topic is kept. Raises InvalidArgument for what is none."""
    found = topic.casefold()
    if not found:
        raise InvalidArgument("topic", "is empty; name one, such as a tag of an item")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InvalidArgument("topic", "has a lone surrogate; send valid Unicode") from None
    return found
