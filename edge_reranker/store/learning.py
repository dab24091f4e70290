"""What learning asks of the store: what was shown, what was chosen from it, and what the owner muted."""

from __future__ import annotations

import threading

from sqlite_utils import Database

from edge_reranker.store import choices, muted, rankings
from edge_reranker.store.choices import Inserted
from edge_reranker.store.readers import Read
from edge_reranker.store.spaces import Spaces
from edge_reranker.store.writer import Writer


class Learning:
    """Its methods are the store's, but for the last two. Thread-safe.

    Which topics are muted, and how many choices there are, is in memory as the database has it.
    """

    def __init__(self, writer: Writer, read: Read, spaces: Spaces) -> None:
        self._writer = writer
        self._read = read
        self._spaces = spaces
        self._muted: dict[str, tuple[str, ...]] = {}
        self._states: dict[str, tuple[int, int, int]] = {}
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
        """How many choices there are, and the numbers of the first and the last; zeros when there is none.

        No I/O, but for the first call after choices have gone.
        """
        known = self._states.get(namespace)
        if known is not None:
            return known
        before = self._changes
        found = self._read(lambda db: choices.state(db, namespace))
        with self._lock:
            if self._changes == before:
                self._states[namespace] = found
        return found

    def mute(self, namespace: str, topic: str) -> None:
        """Mute a topic, in whatever case; on return it is durable. Idempotent.

        Raises InvalidArgument for what is no topic, NotFound for a namespace that is being deleted.
        """
        folded = muted.folded(topic)

        def run(db: Database) -> None:
            self._spaces.require_open(namespace)
            muted.add(db, namespace, folded)

        self._writer.submit(run, lambda _: self.changed())

    def unmute(self, namespace: str, topic: str) -> None:
        """Take that back; on return it is durable. Idempotent. Raises InvalidArgument."""
        folded = muted.folded(topic)
        self._writer.submit(lambda db: muted.remove(db, namespace, folded), lambda _: self.changed())

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

    def chosen(self, namespace: str, new: Inserted) -> None:
        """Takes in after the commit what choices are new."""
        if not (new.seqs or new.pruned):
            return
        with self._lock:
            self._changes += 1
            known = self._states.pop(namespace, None)
            if known is not None and not new.pruned:
                n, first, _ = known
                self._states[namespace] = (n + len(new.seqs), first or new.seqs[0], new.seqs[-1])

    def changed(self) -> None:
        """Choices and muted topics may be others now, whoever's; called after the commit."""
        with self._lock:
            self._changes += 1
            self._muted.clear()
            self._states.clear()
