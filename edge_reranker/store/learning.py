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
    """Reads what was shown and chosen, mutes and unmutes. Thread-safe.

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
        """See ``Store.detail``."""
        return self._read(lambda db: rankings.detail(db, namespace, ranking_id))

    def choices(self, namespace: str, after_seq: int = 0) -> list[tuple[int, bytes]]:
        """See ``Store.choices``."""
        return self._read(lambda db: choices.after(db, namespace, after_seq))

    def state(self, namespace: str) -> tuple[int, int, int]:
        """See ``Store.choices_state``."""
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
        """See ``Store.mute``."""
        folded = muted.folded(topic)

        def run(db: Database) -> None:
            self._spaces.require_open(namespace)
            muted.add(db, namespace, folded)

        self._writer.submit(run, lambda _: self.changed())

    def unmute(self, namespace: str, topic: str) -> None:
        """See ``Store.unmute``."""
        folded = muted.folded(topic)
        self._writer.submit(lambda db: muted.remove(db, namespace, folded), lambda _: self.changed())

    def muted(self, namespace: str) -> tuple[str, ...]:
        """See ``Store.muted``."""
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
