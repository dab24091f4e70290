"""Connections for reading: as many as there are readers at once, kept for the next ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreError
from edge_reranker.store import faults

_T = TypeVar("_T")
_MAX_IDLE = 8


class Read(Protocol):
    """Runs a function on a connection that sees one state of the database, and ends that read with it."""

    def __call__(self, query: Callable[[Database], _T], /) -> _T:
        """What the function returns."""
        ...


class Readers:
    """A pool of read-only connections. Thread-safe."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._idle: list[Database] = []
        self._lock = threading.Condition()
        self._closed = False
        self._in_use = 0
        self._kept_out = False

    @contextlib.contextmanager
    def one(self) -> Iterator[Database]:
        """A connection for the block, which must fetch all rows that it asks for.

        Raises StoreError after close, and the database's own errors.
        """
        with self._lock:
            self._lock.wait_for(lambda: not self._kept_out)
            if self._closed:
                raise StoreError("the store is closed; open it again")
            self._in_use += 1
            # The last one used has the warmest page cache.
            db = self._idle.pop() if self._idle else None
        try:
            if db is None:
                db = self._connect()
            yield db
        except dbapi2.Error as e:
            if db is not None and faults.poisons(e):
                db.close()
                db = None
            raise
        finally:
            self._give_back(db)

    @contextlib.contextmanager
    def kept_out(self, wait_s: float) -> Iterator[bool]:
        """No connection is open during the block, and who wants one waits; False when one lasts too long."""
        with self._lock:
            self._kept_out = True
            free = self._lock.wait_for(lambda: not self._in_use, timeout=wait_s)
            idle, self._idle = self._idle, []
        try:
            for db in idle:
                db.close()
            yield free
        finally:
            with self._lock:
                self._kept_out = False
                self._lock.notify_all()

    def close(self) -> None:
        """Close what is idle now, and the others when their block ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def _give_back(self, db: Database | None) -> None:
        with self._lock:
            self._in_use -= 1
            keep = db is not None and not self._closed and len(self._idle) < _MAX_IDLE
            if keep:
                self._idle.append(db)
            self._lock.notify_all()
        if db is not None and not keep:
            db.close()
