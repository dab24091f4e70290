"""Forgetting as a whole: what goes, from rows to backups, and the receipt of it."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlite_utils import Database

from edge_reranker.store import digest, faults, forget, promises, recovery
from edge_reranker.store.backups import Backups
from edge_reranker.store.care import Care
from edge_reranker.store.erasure import Erasure
from edge_reranker.store.promises import Promise
from edge_reranker.store.reserve import Reserve
from edge_reranker.store.writer import Writer
from edge_reranker.types import Forgotten, Selector


class Forgetting:
    """Carries out one forget after another. Thread-safe.

    ``changed`` hears after each commit of whose events went, None for everybody's, and how many.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], Database],
        writer: Writer,
        backups: Backups,
        care: Care,
        changed: Callable[[str | None, int], None],
    ) -> None:
        self._path = path
        self._connect = connect
        self._writer = writer
        self._backups = backups
        self._care = care
        self._changed = changed
        self._reserve = Reserve(path.with_name("reserve"))
        self._reserve.make()
        self._lock = threading.Lock()

    def forget(self, namespace: str, selector: Selector) -> Forgotten:
        """See ``Store.forget``."""
        with self._lock:
            gone = self._erase(Promise(namespace, selector))
            if selector.all_namespaces:
                return gone
            # On a connection of its own, beside what is being written now.
            with self._beside() as db:
                return dataclasses.replace(gone, remaining_digest=digest.remaining(db, namespace))

    def would_forget(self, namespace: str, selector: Selector) -> Forgotten:
        """The receipt that ``forget`` would give; nothing is written."""
        with self._beside() as db:
            found = forget.gather(db, namespace, selector)
            left = "" if selector.all_namespaces else digest.remaining(db, namespace)
        n_copies = len(self._backups.list()) + recovery.n_quarantined(self._path.parent)
        return dataclasses.replace(found, backups=n_copies, remaining_digest=left)

    def after(self, remove: Callable[[Database], None], removed: Callable[[None], None]) -> None:
        """Remove rows by ``remove``, then what is beside the tables. Raises StoreError."""

        def run(db: Database) -> None:
            remove(db)
            promises.owe(db)

        with self._lock:
            self._writer.submit(run, removed)
            self._erase(None)

    def finish(self) -> None:
        """Carry out what was cut off. Raises StoreError."""
        self._erase(None)

    @contextlib.contextmanager
    def _beside(self) -> Iterator[Database]:
        """A connection that sees one moment, and writes to temporary tables only, which are there."""
        with faults.translated(self._path):
            db = self._connect()
            try:
                db.conn.execute("BEGIN")
                forget.prepare(db)
                yield db
            finally:
                db.close()

    def _erase(self, promise: Promise | None) -> Forgotten:
        def removed(promise: Promise, gone: Forgotten) -> None:
            self._changed(None if promise.selector.all_namespaces else promise.namespace, gone.events)

        erasure = Erasure(self._path, promise, removed, self._care.remove_copies)
        # A backup that is being made would have what is forgotten, and keep the log from being emptied.
        with self._backups.held_off():
            return erasure.run(self._writer, self._reserve)
