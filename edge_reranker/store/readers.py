"""Connections for reading: as many as there are readers at once, kept for the next ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreError
from edge_reranker.store import faults

_MAX_IDLE = 8


class Readers:
    """A pool of read-only connections. Thread-safe."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._idle: list[Database] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def one(self) -> Iterator[Database]:
        """A connection for the block, which must fetch all rows that it asks for.

        Raises StoreError after close, and the database's own errors.
        """
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed; open it again")
            # The last one used has the warmest page cache.
            db = self._idle.pop() if self._idle else None
        if db is None:
            db = self._connect()
        try:
            yield db
        except dbapi2.Error as e:
            if faults.poisons(e):
                db.close()
            else:
                self._give_back(db)
            raise
        except BaseException:
            self._give_back(db)
            raise
        else:
            self._give_back(db)

    def close(self) -> None:
        """Close what is idle now, and the others when their block ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def _give_back(self, db: Database) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _MAX_IDLE:
                self._idle.append(db)
                return
        db.close()
