"""Topics that the owner muted, in memory as the database has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument
from edge_reranker.store.writer import Writer

_T = TypeVar("_T")


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


class _Read(Protocol):
    def __call__(self, query: Callable[[Database], _T], /) -> _T: ...


class Muted:
    """Mutes and unmutes, and knows what is muted without I/O after the first look. Thread-safe.

    ``allowed`` is asked in between writes, and raises when the namespace takes nothing any more.
    """

    def __init__(self, writer: Writer, read: _Read, allowed: Callable[[str], None]) -> None:
        self._writer = writer
        self._read = read
        self._allowed = allowed
        self._known: dict[str, tuple[str, ...]] = {}
        self._changes = 0
        self._lock = threading.Lock()

    def mute(self, namespace: str, topic: str) -> None:
        """See ``Store.mute``."""
        folded = _folded(topic)

        def run(db: Database) -> None:
            self._allowed(namespace)
            add(db, namespace, folded)

        self._writer.submit(run, lambda _: self.changed(namespace))

    def unmute(self, namespace: str, topic: str) -> None:
        """See ``Store.unmute``."""
        folded = _folded(topic)
        self._writer.submit(lambda db: remove(db, namespace, folded), lambda _: self.changed(namespace))

    def of(self, namespace: str) -> tuple[str, ...]:
        """See ``Store.muted``."""
        known = self._known.get(namespace)
        if known is not None:
            return known
        before = self._changes
        found = self._read(lambda db: topics(db, namespace))
        with self._lock:
            # What changed meanwhile may have come behind the read: then the next one looks again.
            if self._changes == before:
                self._known[namespace] = found
        return found

    def changed(self, namespace: str | None) -> None:
        """Topics of a namespace, or of all for None, may be others now; called after the commit."""
        with self._lock:
            self._changes += 1
            if namespace is None:
                self._known.clear()
            else:
                self._known.pop(namespace, None)


def _folded(topic: str) -> str:
    folded = topic.casefold()
    if not folded:
        raise InvalidArgument("topic", "is empty; name one, such as a tag of an item")
    try:
        folded.encode()
    except UnicodeEncodeError:
        raise InvalidArgument("topic", "has a lone surrogate; send valid Unicode") from None
    return folded
