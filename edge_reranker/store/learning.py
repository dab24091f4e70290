"""What learning asks of the store: what was shown, what was chosen from it, and what the owner muted."""

from __future__ import annotations

import threading

from sqlite_utils import Database

from edge_reranker.store import choices, muted, rankings
from edge_reranker.store.readers import Read
from edge_reranker.store.spaces import Spaces
from edge_reranker.store.writer import Writer


class Learning:
    """Its methods are the store's. Thread-safe. Muted topics are in memory as the database has them."""

    def __init__(self, writer: Writer, read: Read, spaces: Spaces) -> None:
        self._writer = writer
        self._read = read
        self._spaces = spaces
        self._muted: dict[str, tuple[str, ...]] = {}
        self._changes = 0
        self._lock = threading.Lock()

    def detail(self, namespace: str, ranking_id: str) -> bytes | None:
        """What was logged with a ranking as its ``detail``; None when it had none, or has not any more."""
        return self._read(lambda db: rankings.detail(db, namespace, ranking_id))

    def choices(self, namespace: str, after_seq: int = 0) -> list[tuple[int, bytes]]:
        """The choices of events numbered above ``after_seq``, each with its event's number, as they arrived.

        At most the newest 5,000 are kept. The number of a newest event that has gone is given again.
        """
        return self._read(lambda db: choices.after(db, namespace, after_seq))

    def choices_state(self, namespace: str) -> tuple[int, int, int]:
        """How many choices there are, and the numbers of the first and the last; zeros when there is none."""
        return self._read(lambda db: choices.state(db, namespace))

    def mute(self, namespace: str, topic: str) -> None:
        """Mute a topic, in whatever case; on return it is durable. Idempotent.

        Raises InvalidArgument for what is no topic, NotFound for a namespace that is being deleted.
        """
        folded = muted.folded(topic)

        def run(db: Database) -> None:
            self._spaces.require_open(namespace)
            muted.add(db, namespace, folded)

        self._writer.submit(run, lambda _: self.changed(namespace))

    def unmute(self, namespace: str, topic: str) -> None:
        """Take that back; on return it is durable. Idempotent. Raises InvalidArgument."""
        folded = muted.folded(topic)
        self._writer.submit(lambda db: muted.remove(db, namespace, folded), lambda _: self.changed(namespace))

    def muted(self, namespace: str) -> tuple[str, ...]:
        """The muted topics, casefolded, in order. No I/O after the first call."""
        known = self._muted.get(namespace)
        if known is not None:
            return known
        before = self._changes
        found = self._read(lambda db: muted.topics(db, namespace))
        with self._lock:
            # What changed meanwhile may have come behind the read: then the next one looks again.
            if self._changes == before:
                self._muted[namespace] = found
        return found

    def changed(self, namespace: str | None) -> None:
        """Muted topics of a namespace, or of all for None, may be others now; called after the commit."""
        with self._lock:
            self._changes += 1
            if namespace is None:
                self._muted.clear()
            else:
                self._muted.pop(namespace, None)
