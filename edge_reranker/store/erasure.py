"""A forget from its first row to an empty log, also on a disk that is full, or after one that was cut off."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreBusy, StoreError, StoreFull
from edge_reranker.store import faults, forget, promises
from edge_reranker.store.promises import Promise
from edge_reranker.store.reserve import RESERVE_BYTES, Reserve
from edge_reranker.store.writer import Writer, checkpoint, transaction
from edge_reranker.types import Forgotten

# Events of the first part; one that the disk has no room for is halved.
_PART_ROWS = 512


class Erasure:
    """One call of forget, which knows at any moment what of it is committed.

    Before it, it does what an earlier one has left; ``promise`` None does only that. ``removed`` hears of
    every commit; ``purge`` removes all copies of the store, and says how many.
    """

    def __init__(
        self,
        path: Path,
        promise: Promise | None,
        removed: Callable[[Promise, Forgotten], None],
        purge: Callable[[], int],
    ) -> None:
        self._path = path
        self._own = promise
        self._removed = removed
        self._purge = purge
        self._promises: list[Promise] = []
        self._gone = Forgotten()
        self._had_reserve = False

    def run(self, writer: Writer, reserve: Reserve) -> Forgotten:
        """What was removed. Raises StoreError, which says how far it came."""
        try:
            try:
                writer.alone(lambda db: self._with_room(db, reserve))
            except StoreFull:
                self._had_reserve = reserve.path.exists()
                # A job of its own: a connection that the full disk spoiled is replaced, in the new room.
                writer.alone(self._without_room, reserve.given_up)
        except StoreFull:
            raise StoreFull(self._how_far("the disk is full; free some space", reserve.path)) from None
        except StoreBusy:
            raise
        except StoreError as e:
            if self._gone == Forgotten() and not self._complete:
                raise
            raise type(e)(self._how_far(str(e), reserve.path)) from None
        return self._gone

    @property
    def _complete(self) -> bool:
        """Whether all rows are gone."""
        return bool(self._promises) and all(promise.kept for promise in self._promises)

    def _with_room(self, db: Database, reserve: Reserve) -> None:
        for promise in self._read(db):
            self._part(db, promise, -1)
        self._finish(db, scrub=_room_to_scrub(self._path))
        reserve.make()

    def _without_room(self, db: Database) -> None:
        # First what is in the log already: from here on, no page makes the database grow.
        checkpoint(db)
        for promise in self._read(db):
            if not promise.kept:
                self._in_parts(db, promise)
        self._finish(db, scrub=False)

    def _read(self, db: Database) -> list[Promise]:
        if not self._promises:
            self._promises = [*promises.open_ones(db), *([self._own] if self._own else [])]
        return self._promises

    def _in_parts(self, db: Database, promise: Promise) -> None:
        n_rows = _PART_ROWS
        if promise.until is None:
            promise.until = promises.newest_event(db)
        while not promise.kept:
            try:
                self._part(db, promise, n_rows)
            except dbapi2.Error as e:
                if n_rows == 1 or not faults.is_full(e):
                    raise
                n_rows //= 2
                continue
            # The room that this part took in the log is the next one's.
            checkpoint(db)

    def _part(self, db: Database, promise: Promise, n_rows: int) -> None:
        """About ``n_rows`` of the rows, or all for -1; with them, in one transaction, what is left to do."""
        with transaction(db):
            found = forget.remove(db, promise.namespace, promise.selector, until=promise.until, n_rows=n_rows)
            kept = n_rows < 0 or found == Forgotten()
            id_ = promise.id or promises.next_id(db)
            promises.write(db, dataclasses.replace(promise, id=id_, kept=kept))
        promise.id, promise.kept = id_, kept
        self._add(found)
        self._removed(promise, found)

    def _add(self, found: Forgotten) -> None:
        counts = {
            kind: n + getattr(found, kind)
            for kind, n in dataclasses.asdict(self._gone).items()
            if isinstance(n, int)
        }
        self._gone = Forgotten(**counts)

    def _finish(self, db: Database, *, scrub: bool) -> None:
        """What is beside the tables, and between the rows; only then is the promise struck out."""
        try:
            self._add(Forgotten(backups=self._purge()))
        except OSError as e:
            raise StoreError(
                f"a backup could not be removed: {os.strerror(e.errno or 0)}; check its permissions"
            ) from None
        finally:
            if scrub:
                # secure_delete overwrites a row where it lies, not the copy that stays in the free part of a
                # page when its rows are moved to another one: that was left of 1 in 100 forgotten events.
                db.conn.execute("VACUUM")
            emptied = checkpoint(db)
        if not emptied:
            raise StoreBusy(
                f"forgotten, but another process keeps the log of {self._path} open; stop it and forget again"
            )
        if scrub:
            with transaction(db):
                promises.strike(db)
            checkpoint(db)

    def _how_far(self, why: str, reserve: Path) -> str:
        if self._complete:
            return f"forgotten, but the log could not be emptied: {why} and forget again"
        if self._gone != Forgotten():
            kinds = dataclasses.asdict(self._gone).items()
            counts = ", ".join(f"{n} {kind}" for kind, n in kinds if n)
            return f"forgotten in part ({counts}): {why} and forget the rest"
        state = "did not suffice" if self._had_reserve else "is missing"
        return f"nothing was forgotten: the reserve {reserve} {state} and {why} and forget again"


def _room_to_scrub(path: Path) -> bool:
    """Whether the database fits on the disk once more, in the log, without the reserve."""
    return shutil.disk_usage(path.parent).free > path.stat().st_size + RESERVE_BYTES
