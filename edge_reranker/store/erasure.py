"""A forget from its first row to an empty log, also on a disk that is full."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreBusy, StoreError, StoreFull
from edge_reranker.store import faults
from edge_reranker.store.reserve import Reserve
from edge_reranker.store.writer import Writer, checkpoint, transaction
from edge_reranker.types import Forgotten

# Rows of the first part; one that the disk has no room for is halved.
_PART_ROWS = 512


class Erasure:
    """One call of forget, which knows at any moment what of it is committed.

    ``remove`` takes out all rows, ``some`` at most as many as it is told to; both run inside a transaction.
    Without ``some``, the removal is never split. ``removed`` hears of every commit.
    """

    def __init__(
        self,
        path: Path,
        remove: Callable[[Database], Forgotten],
        some: Callable[[Database, int], Forgotten] | None,
        removed: Callable[[Forgotten], None],
    ) -> None:
        self._path = path
        self._remove = remove
        self._some = some
        self._removed = removed
        self._gone = Forgotten()
        self._complete = False
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

    def _with_room(self, db: Database, reserve: Reserve) -> None:
        self._all(db)
        self._finish(db)
        reserve.make()

    def _without_room(self, db: Database) -> None:
        # First what is in the log already: from here on, no page makes the database grow.
        checkpoint(db)
        if self._some is not None:
            self._in_parts(db, self._some)
        elif not self._complete:
            self._all(db)
        self._finish(db)

    def _all(self, db: Database) -> None:
        with transaction(db):
            found = self._remove(db)
        self._complete = True
        self._add(found)

    def _in_parts(self, db: Database, some: Callable[[Database, int], Forgotten]) -> None:
        n_rows = _PART_ROWS
        while not self._complete:
            try:
                with transaction(db):
                    found = some(db, n_rows)
            except dbapi2.Error as e:
                if n_rows == 1 or not faults.is_full(e):
                    raise
                n_rows //= 2
                continue
            self._complete = found == Forgotten()
            self._add(found)
            # The room that this part took in the log is the next one's.
            checkpoint(db)

    def _add(self, found: Forgotten) -> None:
        pairs = zip(dataclasses.astuple(self._gone), dataclasses.astuple(found), strict=True)
        self._gone = Forgotten(*(a + b for a, b in pairs))
        self._removed(found)

    def _finish(self, db: Database) -> None:
        if not checkpoint(db):
            raise StoreBusy(
                f"forgotten, but another process keeps the log of {self._path} open; stop it and forget again"
            )

    def _how_far(self, why: str, reserve: Path) -> str:
        if self._complete:
            return f"forgotten, but the log could not be emptied: {why} and forget again"
        if self._gone != Forgotten():
            counts = ", ".join(f"{n} {kind}" for kind, n in dataclasses.asdict(self._gone).items() if n)
            return f"forgotten in part ({counts}): {why} and forget the rest"
        state = "did not suffice" if self._had_reserve else "is missing"
        return f"nothing was forgotten: the reserve {reserve} {state} and {why} and forget again"
